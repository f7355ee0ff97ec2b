"""CoDi: conditional diffusion distillation (Mei et al., CVPR 2024) in JAX."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codi_jax.sampling.sampler import Sampler

__version__ = "0.1.0"
__all__ = ["Sampler", "__version__"]


def __getattr__(name: str) -> "type[Sampler]":
    if name == "Sampler":  # not above: data workers import this package and must start fast
        from codi_jax.sampling.sampler import Sampler

        return Sampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

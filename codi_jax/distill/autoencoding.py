"""The autoencoder's loss (Kingma & Welling 2013; Rombach et al. 2022, without the critic)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from codi_jax.distill.distances import distance
from codi_jax.typing import Array, Params

#: ``reconstruct(params, images, key) -> (reconstruction, mean, logvar)``; no ``logvar`` where the
#: code has no posterior.
ReconstructFn = Callable[[Params, Array, Array], tuple[Array, Array, Array | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """A distance of pixels, plus L1 on their differences, plus a small KL to the unit normal.

    Attributes:
        pixel: the distance, see :func:`codi_jax.distill.distances.distance`.
        kl_weight: weight of the mean KL per latent element (1e-6 in latent diffusion); without a
            posterior there is none.
        edge_weight: weight of the L1 between horizontal and vertical finite differences: a
            plain pixel loss buys smooth pictures, and blur is what super-resolution removes.
    """

    pixel: str = "l1"
    kl_weight: float = 1e-6
    edge_weight: float = 1.0
    #: As of the losses on latents: no teacher.
    teacher: ClassVar[None] = None

    def __call__(
        self,
        reconstruct: ReconstructFn,
        params: Params,
        batch: Mapping[str, Any],
        key: Array,
    ) -> dict[str, Array]:
        """Losses per sample of ``batch["images"]`` [B, H, W, 3] in [-1, 1].

        Returns:
            float32 [B] each: "loss", "pixel", "edge" and, with a posterior, "kl".
        """
        x = batch["images"]
        x_hat, mean, logvar = reconstruct(params, x, key)
        pixel = distance(self.pixel, x, x_hat)
        error = x_hat - x
        edge = sum(jnp.abs(jnp.diff(error, axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2))
        losses = {"pixel": pixel, "edge": jnp.asarray(edge)}
        loss = pixel + self.edge_weight * losses["edge"]
        if logvar is None:
            return {"loss": loss, **losses}
        kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1.0 - logvar).mean(axis=(1, 2, 3))
        return {"loss": loss + self.kl_weight * kl, **losses, "kl": kl}

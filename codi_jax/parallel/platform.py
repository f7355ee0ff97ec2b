"""What the machine computes well in."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.typing import UserError


def compute_dtype(name: str) -> DTypeLike:
    """The dtype of the networks' computation; their parameters stay float32.

    Args:
        name: "float32", "bfloat16", or "auto": bfloat16 on accelerators, and float32 on CPUs,
            which have no fast bfloat16.

    Raises:
        UserError: another name.
    """
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype={name!r}: choose auto, float32 or bfloat16.")
    return jnp.dtype(name)

"""Distances between two batches, one number per sample.

All are means over the axes other than the batch, so that they do not depend on the resolution:

* "l2": mean squared difference, the paper's default for both terms of eq. 11;
* "l1": mean absolute difference;
* "huber": pseudo-Huber of improved consistency training (Song & Dhariwal 2023),
  ``sqrt(|a - b|^2 + c^2) - c`` with ``c = 0.00054 sqrt(d)``, divided by ``sqrt(d)`` where d is
  the number of values per sample: ``sqrt(l2 + 0.00054^2) - 0.00054``.
"""

import jax.numpy as jnp
from jaxtyping import Float

from codi_jax.typing import Array, check_choice

DISTANCES = ("l2", "l1", "huber")
_HUBER_C = 0.00054


def distance(
    name: str, a: Float[Array, " batch *shape"], b: Float[Array, " batch *shape"]
) -> Float[Array, " batch"]:
    """One number per sample.

    Args:
        name: one of `DISTANCES`.
        a: float32 [B, ...].
        b: likewise.

    Raises:
        UserError: unknown name.
    """
    check_choice("distance", name, DISTANCES)
    difference = (a - b).reshape(a.shape[0], -1)
    if name == "l1":
        return jnp.mean(jnp.abs(difference), axis=1)
    l2 = jnp.mean(jnp.square(difference), axis=1)
    if name == "l2":
        return l2
    # sqrt(l2 + c^2) - c without its cancellation at small l2.
    return l2 / (jnp.sqrt(l2 + _HUBER_C**2) + _HUBER_C)


def min_snr_weight(
    alpha: Float[Array, " batch"], sigma: Float[Array, " batch"], gamma: float, space: str
) -> Float[Array, " batch"]:
    """Weights of squared errors by their noise level.

    * "x": ``clip(SNR, 1, gamma)``;
    * "eps": ``min(1, gamma / SNR)``.

    The ceiling gamma is min-SNR's (Hang et al. 2023). A squared error of x is one of eps times
    1 / SNR, so the two weights mean the same where the SNR is at least 1. The floor 1 is that of
    truncated SNR (Salimans & Ho 2022): without it errors at zero terminal SNR, where sampling in
    few steps starts, would have no weight.

    Args:
        alpha: signal levels, float32 [B].
        sigma: noise levels, float32 [B], > 0.
        gamma: the largest SNR that counts.
        space: what the error is of, "x" or "eps".
    """
    snr = (alpha / sigma) ** 2
    if space == "x":
        return jnp.clip(snr, 1.0, gamma)
    return jnp.minimum(1.0, gamma / jnp.maximum(snr, 1e-20))

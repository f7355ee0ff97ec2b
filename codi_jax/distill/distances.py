"""Distances between two batches, one number per sample.

All are means over the axes other than the batch, so that they do not depend on the resolution:

* "l2": mean squared difference, the paper's default for both terms of eq. 11;
* "l1": mean absolute difference;
* "huber": pseudo-Huber of improved consistency training (Song & Dhariwal 2023),
  ``sqrt(|a - b|^2 + c^2) - c`` with ``c = 0.00054 sqrt(d)``, divided by ``sqrt(d)`` where d is
  the number of values per sample: ``sqrt(l2 + 0.00054^2) - 0.00054``.
"""

import jax.numpy as jnp

from codi_jax.diffusion.schedules import check_choice
from codi_jax.typing import Array

DISTANCES = ("l2", "l1", "huber")
_HUBER_C = 0.00054


def distance(name: str, a: Array, b: Array) -> Array:
    """The distance ``name`` between ``a`` and ``b``, float32 [B, ...], as float32 [B].

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


def min_snr_weight(alpha: Array, sigma: Array, gamma: float, space: str) -> Array:
    """``min(SNR, gamma)`` for errors of "x"; divided by the SNR for errors of "eps" [B].

    Hang et al. 2023. Both are the same weight: an error of eps is the SNR's root times one of x.
    ``alpha`` and ``sigma`` are float32 [B], sigma > 0.
    """
    square = alpha**2, sigma**2
    if space == "x":
        return jnp.minimum(square[0] / square[1], gamma)
    return jnp.minimum(1.0, gamma * square[1] / jnp.maximum(square[0], 1e-20))

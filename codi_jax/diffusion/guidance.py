"""Classifier-free guidance (Ho & Salimans 2022): ``uncond + w (cond - uncond)``."""

import jax
import jax.numpy as jnp

from codi_jax.diffusion.schedules import expand
from codi_jax.typing import Array, Cond, Params, PredictFn, UserError


def cfg_predict(
    predict: PredictFn,
    params: Params,
    z_t: Array,
    t: Array,
    cond: Cond,
    uncond: Cond | None,
    guidance_scale: Array | float,
) -> Array:
    """The guided output of a network, from one call on a doubled batch, [uncond, cond].

    Args:
        predict: the network.
        params: its parameters.
        z_t: noisy latents [B, h, w, C].
        t: [B].
        cond: the condition, arrays with a leading batch axis of B.
        uncond: what stands for "no condition", with the keys and shapes of ``cond``. Not
            used at scale 1.
        guidance_scale: w. A Python number 1.0 means no guidance, and the network runs once
            on ``cond`` alone. An array, scalar or [B], always runs both.

    Returns:
        The network's output at scale 1, else the guided output in float32; [B, h, w, C].

    Raises:
        UserError: ``uncond`` is missing or has other keys than ``cond``.
    """
    if isinstance(guidance_scale, (int, float)) and guidance_scale == 1.0:
        return predict(params, z_t, t, cond)
    if uncond is None:
        raise UserError(
            f"guidance_scale={guidance_scale} needs the unconditional inputs: pass uncond, or "
            "set guidance_scale=1.0."
        )
    if set(uncond) != set(cond):
        raise UserError(
            f"uncond has the entries {sorted(uncond)} but cond has {sorted(cond)}: give both "
            "the same entries."
        )
    both = jax.tree.map(lambda u, c: jnp.concatenate([u, c]), dict(uncond), dict(cond))
    output = predict(params, jnp.concatenate([z_t, z_t]), jnp.concatenate([t, t]), both)
    out_uncond, out_cond = jnp.split(output.astype(jnp.float32), 2)
    return out_uncond + expand(guidance_scale, out_cond) * (out_cond - out_uncond)

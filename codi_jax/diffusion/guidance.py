"""Classifier-free guidance (Ho & Salimans 2022): ``uncond + w (cond - uncond)``.

With two conditions, image and text: :func:`two_guidances`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from codi_jax.diffusion.schedules import expand
from codi_jax.typing import Cond, Params, PredictFn, UserError


def cfg_predict(
    predict: PredictFn,
    params: Params,
    z_t: Float[Array, "batch height width channels"],
    t: Real[Array, " batch"],
    cond: Cond,
    uncond: Cond | None,
    guidance_scale: Float[Array, "..."] | float,
) -> Float[Array, "batch height width out_channels"]:
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


def two_guidances(predict: PredictFn) -> PredictFn:
    """``predict`` under guidance by an image and by a text (Brooks et al. 2023, equation 3).

        e(0, 0) + s_I (e(c_I, 0) - e(0, 0)) + s_T (e(c_I, c_T) - e(c_I, 0))

    from one call on a tripled batch. The result reads a condition of four entries: "full" (image
    and text), "image" (the image alone) and "none", each a condition of ``predict`` with the same
    keys, and "scales" float32 [B, 2]: s_I and s_T.
    """

    def guided(
        params: Params,
        z_t: Float[Array, "batch height width channels"],
        t: Real[Array, " batch"],
        cond: Cond,
    ) -> Float[Array, "batch height width out_channels"]:
        parts = [dict(cond[name]) for name in ("none", "image", "full")]
        joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)
        output = predict(params, jnp.concatenate([z_t] * 3), jnp.concatenate([t] * 3), joined)
        none, image, full = jnp.split(output.astype(jnp.float32), 3)
        s_image, s_text = (expand(cond["scales"][:, i], none) for i in (0, 1))
        return none + s_image * (image - none) + s_text * (full - image)

    return guided

"""Guidance: the network's output for a condition, pushed away from that for less of it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from codi_jax.diffusion.schedules import expand
from codi_jax.typing import Cond, Params, PredictFn, UserError


class GuidedCondition(NamedTuple):
    """What a network reads, and what it reads on the other side of its guidance.

    Which of the conditions are there decides how :func:`guided_predict` calls the network; all
    that are have the same entries.

    Attributes:
        cond: the whole condition.
        uncond: the condition without its text, or with a negative one; None for no guidance.
        none: the condition without its text and without its image; None for no guidance by the
            image. It needs ``uncond``.
        scale: w or s_T, the weight of the text; read only with ``uncond``, and by networks that
            were distilled for many scales.
        image_scale: s_I, the weight of the image; read only with ``none``.
    """

    cond: Cond = {}
    uncond: Cond | None = None
    none: Cond | None = None
    scale: Float[Array, "..."] | float = 1.0
    image_scale: Float[Array, "..."] | float = 1.0

    def map(self, function: Callable[[Cond], Cond]) -> "GuidedCondition":
        """``function`` of every condition that is there; the scales stay."""
        return self._replace(
            cond=function(self.cond),
            uncond=None if self.uncond is None else function(self.uncond),
            none=None if self.none is None else function(self.none),
        )


def guided_predict(
    predict: PredictFn,
    params: Params,
    z_t: Float[Array, "batch height width channels"],
    t: Real[Array, " batch"],
    condition: GuidedCondition,
) -> Float[Array, "batch height width out_channels"]:
    """The guided output of a network, from one call.

    Args:
        predict: the network.
        params: its parameters.
        z_t: noisy latents.
        t: their times.
        condition: arrays with a leading batch axis of B.

    Returns:
        Without guidance the network's output; else the guided output in float32: see
        :func:`cfg_predict` and, with an image and a text, :func:`image_text_predict`.
    """
    c = condition
    if c.uncond is None:
        return predict(params, z_t, t, c.cond)
    if c.none is None:
        return cfg_predict(predict, params, z_t, t, c.cond, c.uncond, c.scale)
    return image_text_predict(predict, params, z_t, t, c)


def cfg_predict(
    predict: PredictFn,
    params: Params,
    z_t: Float[Array, "batch height width channels"],
    t: Real[Array, " batch"],
    cond: Cond,
    uncond: Cond,
    guidance_scale: Float[Array, "..."] | float,
) -> Float[Array, "batch height width out_channels"]:
    """Classifier-free guidance (Ho & Salimans 2022): ``uncond + w (cond - uncond)``.

    Args:
        predict: the network, called once on a doubled batch, [uncond, cond].
        params: its parameters.
        z_t: noisy latents.
        t: their times.
        cond: the condition, arrays with a leading batch axis of B.
        uncond: what stands for "no condition", with the keys and shapes of ``cond``.
        guidance_scale: w, a scalar or [B].

    Returns:
        The guided output, float32.

    Raises:
        UserError: ``uncond`` has other keys than ``cond``.
    """
    output = _joined(predict, params, z_t, t, uncond, cond)
    out_uncond, out_cond = jnp.split(output, 2)
    return out_uncond + expand(guidance_scale, out_cond) * (out_cond - out_uncond)


def image_text_predict(
    predict: PredictFn,
    params: Params,
    z_t: Float[Array, "batch height width channels"],
    t: Real[Array, " batch"],
    condition: GuidedCondition,
) -> Float[Array, "batch height width out_channels"]:
    """Guidance by an image and by a text (Brooks et al. 2023, equation 3).

        e(0, 0) + s_I (e(c_I, 0) - e(0, 0)) + s_T (e(c_I, c_T) - e(c_I, 0))

    Args:
        predict: the network, called once on a tripled batch, [none, uncond, cond].
        params: its parameters.
        z_t: noisy latents.
        t: their times.
        condition: with all its three conditions.

    Returns:
        The guided output, float32.

    Raises:
        UserError: the conditions differ in their keys.
    """
    c = condition
    assert c.uncond is not None and c.none is not None
    output = _joined(predict, params, z_t, t, c.none, c.uncond, c.cond)
    none, image, full = jnp.split(output, 3)
    s_image, s_text = expand(c.image_scale, none), expand(c.scale, none)
    return none + s_image * (image - none) + s_text * (full - image)


def _joined(predict: PredictFn, params: Params, z_t: Array, t: Array, *conditions: Cond) -> Array:
    """The outputs for several conditions of one ``z_t``, along the batch axis, float32."""
    for condition in conditions:
        if set(condition) != set(conditions[-1]):
            raise UserError(
                f"uncond has the entries {sorted(condition)} but cond has "
                f"{sorted(conditions[-1])}: give both the same entries."
            )
    n = len(conditions)
    joined = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *map(dict, conditions))
    output = predict(params, jnp.concatenate([z_t] * n), jnp.concatenate([t] * n), joined)
    return output.astype(jnp.float32)

"""Embeddings of times, guidance scales and SDXL's sizes."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.embeddings import (
    NO_PROMPT,
    Prompt,
    guidance_embedding,
    sinusoidal_embedding,
    time_embedding,
)
from codi_jax.typing import UserError
from tests.models.tiny_unets import NO_TEXT, POOLED


def by_hand(t: float, dim: int, *, shift: float) -> tuple[list[float], list[float]]:
    half = dim // 2
    angles = [t * 10_000 ** (-k / (half - shift)) for k in range(half)]
    return [math.sin(a) for a in angles], [math.cos(a) for a in angles]


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("flip", [False, True])
def test_sinusoids(flip: bool, shift: float) -> None:
    times = np.array([0, 3, 999], np.int32)
    made = sinusoidal_embedding(jnp.asarray(times), 8, flip_sin_to_cos=flip, freq_shift=shift)
    assert made.dtype == jnp.float32
    for row, t in zip(made, times, strict=True):
        sin, cos = by_hand(float(t), 8, shift=shift)
        np.testing.assert_allclose(row, [*cos, *sin] if flip else [*sin, *cos], atol=2e-4)


def test_no_guidance_is_the_origin_of_the_scales() -> None:
    """1 is no guidance here; diffusers counts from 0."""
    none, other = guidance_embedding(jnp.asarray([1.0, 1.5]), 6)
    np.testing.assert_array_equal(none, [0, 0, 0, 1, 1, 1])
    sin, cos = by_hand(500.0, 6, shift=1.0)
    np.testing.assert_allclose(other, [*sin, *cos], atol=1e-4)


class Embed(nn.Module):
    """What calls the function in a U-Net."""

    config: object

    @nn.compact
    def __call__(self, t, prompt):
        return time_embedding(self.config, t, prompt, jnp.float32)


def shapes(config, prompt):
    init = Embed(config).init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros(2), prompt)["params"]


def test_the_time_alone() -> None:
    params = shapes(NO_TEXT, NO_PROMPT)
    assert set(params) == {"time_embedding"}
    assert set(params["time_embedding"]) == {"linear_1", "linear_2"}
    assert params["time_embedding"]["linear_1"]["kernel"].shape == (4, 16)


def test_what_a_unet_reads_must_be_given() -> None:
    scaled = dataclasses.replace(NO_TEXT, time_cond_proj_dim=6)
    with pytest.raises(UserError, match="reads cond\\['guidance_scale'\\]"):
        shapes(scaled, NO_PROMPT)
    params = shapes(scaled, Prompt(guidance_scale=jnp.ones(2)))
    assert params["time_embedding"]["cond_proj"]["kernel"].shape == (6, 4)
    with pytest.raises(UserError, match="needs cond\\['text_embeds'\\]"):
        shapes(POOLED, NO_PROMPT)


@pytest.mark.parametrize(("pooled", "fits"), [(5, True), (6, False)])
def test_sdxls_sizes_and_pooled_text(pooled: int, fits: bool) -> None:
    """17 features: 6 sizes of 2 each, and 5 of the pooled text."""
    prompt = Prompt(text_embeds=jnp.ones((2, pooled)), time_ids=jnp.ones((2, 6)))
    if fits:
        params = shapes(POOLED, prompt)
        assert set(params) == {"time_embedding", "add_embedding"}
        assert params["add_embedding"]["linear_1"]["kernel"].shape == (17, 16)
    else:
        with pytest.raises(UserError, match=r"make 18 features but this U-Net reads 17"):
            shapes(POOLED, prompt)


def test_a_prompt_is_what_the_condition_has_of_it() -> None:
    cond = {"text": jnp.ones((1, 2, 3)), "latents": jnp.ones(4)}
    prompt = Prompt.of(cond)
    assert prompt.text is cond["text"]
    assert prompt._replace(text=None) == NO_PROMPT

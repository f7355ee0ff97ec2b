"""Guidance in a user's words: what the networks read of it, and what is refused."""

import dataclasses

import jax.numpy as jnp
import pytest

from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.model import Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.sampling.guidance import Guidance
from codi_jax.tasks.edit import Editing
from codi_jax.typing import UserError


class Letters:
    """In place of CLIP: a prompt is the number of its letters, no negative prompt is -1."""

    def __call__(self, prompts):
        return {"text": jnp.asarray([float(len(p)) for p in prompts])}

    def negative(self, prompt):
        return {"text": jnp.asarray([-1.0 if prompt is None else float(len(prompt))])}


def encode(guidance, *, text=True, reads_scale=False, reads_prompt=False):
    unet = UNetConfig(
        cross_attention_dim=8 if text else None, time_cond_proj_dim=8 if reads_scale else None
    )
    network = AdaptedUNet(unet=unet)
    model = Model(vae=AutoencoderConfig(), network=network, schedule=DiscreteSchedule())
    task = Editing(instruction_channels=4 if reads_prompt else 0)
    return guidance.encode(model, task, Letters)


def words(condition):
    sides = condition.cond, condition.uncond, condition.none
    return [side if not side else float(side["text"][0]) for side in sides]


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (Guidance(), [0, None, None]),
        (Guidance(prompt="cat", negative_prompt="unused"), [3, None, None]),
        (Guidance(prompt="cat", guidance_scale=3.0), [3, -1, None]),
        (Guidance(prompt="cat", negative_prompt="", guidance_scale=3.0), [3, 0, None]),
        (Guidance(negative_prompt="dogs", guidance_scale=0.0), [0, 4, None]),
        (Guidance(prompt="cat", image_guidance_scale=1.5), [3, -1, -1]),
    ],
)
def test_the_other_sides_are_encoded_when_they_count(guidance, expected):
    condition = encode(guidance)
    assert words(condition) == expected
    assert condition.scale == (1.0 if guidance.guidance_scale is None else guidance.guidance_scale)
    assert condition.image_scale == guidance.image_guidance_scale


def test_a_network_that_reads_the_scale_has_no_other_side():
    guidance = Guidance(prompt="cat", guidance_scale=3.0)
    condition = encode(guidance, reads_scale=True)
    assert words(condition) == [3, None, None] and condition.scale == 3.0
    assert encode(Guidance(guidance_scale=3.0), text=False, reads_scale=True).cond == {}
    by_image = encode(dataclasses.replace(guidance, image_guidance_scale=2.0), reads_scale=True)
    assert by_image.none is not None  # which the sampler refuses


def test_a_task_may_read_the_prompt_itself():
    guidance = Guidance(prompt="make it night", guidance_scale=3.0, image_guidance_scale=1.5)
    assert words(encode(guidance, text=False, reads_prompt=True)) == [{}, {}, {}]


@pytest.mark.parametrize(
    ("guidance", "reads_prompt"),
    [
        (Guidance(prompt="cat"), False),
        (Guidance(guidance_scale=2.0), False),
        (Guidance(image_guidance_scale=2.0), False),
        (Guidance(prompt="cat", negative_prompt="dog"), True),
    ],
)
def test_what_a_model_without_text_does_not_read_is_refused(guidance, reads_prompt):
    with pytest.raises(UserError, match="no text encoder"):
        encode(guidance, text=False, reads_prompt=reads_prompt)

"""The model object: its parts, how they start, and what it says of itself."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from codi_jax import trees
from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.configs import AutoencoderConfig
from tests.models.tiny_unets import ADAPTERS, NO_TEXT, PLAIN, TEXT

VAE = AutoencoderConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2)


def model_with(adapter: str = "none", unet: Any = NO_TEXT) -> Model:
    network = AdaptedUNet(unet=unet, adapter=ADAPTERS[adapter])
    return Model(vae=VAE, network=network, schedule=DiscreteSchedule())


def parts(model: AutoencoderModel) -> dict[str, Any]:
    return jax.eval_shape(model.init, jax.random.key(0))


def test_the_parts_are_the_networks() -> None:
    assert set(parts(AutoencoderModel(vae=VAE))) == {"vae"}
    assert set(parts(model_with())) == {"vae", "unet"}
    for adapter in ("mix", "controlnet", "t2i"):
        assert set(parts(model_with(adapter))) == {"vae", "unet", "adapter"}


def test_the_autoencoder_is_the_same_alone_and_in_a_model() -> None:
    """So a prior can be drawn on an autoencoder by its seed."""
    key = jax.random.key(3)
    models = AutoencoderModel(vae=VAE), model_with("none", PLAIN)
    alone, within = (model.inits["vae"](key, {}) for model in models)
    assert trees.tree_hash(alone) == trees.tree_hash(within)


@pytest.mark.parametrize(("adapter", "copied"), [("mix", True), ("controlnet", True)])
def test_an_adapter_starts_as_the_unet_that_was_read(
    adapter: str, copied: bool, random_params: Any
) -> None:
    model = model_with(adapter, PLAIN)
    params = random_params(model.init)
    moved = {**params, "unet": jax.tree.map(lambda x: x + 1, params["unet"])}
    started = model.start_parts(moved)
    own, unet = trees.flatten(started["adapter"]), trees.flatten(moved["unet"])
    shared = [path for path in own if path in unet]
    assert bool(shared) == copied
    for path in shared:
        np.testing.assert_array_equal(own[path], unet[path])
    assert started["vae"] is moved["vae"] and started["unet"] is moved["unet"]


def test_what_has_no_copy_stays_as_it_is(random_params: Any) -> None:
    for model in (model_with("none", PLAIN), model_with("t2i"), AutoencoderModel(vae=VAE)):
        params = random_params(model.init)
        assert trees.tree_hash(model.start_parts(params)) == trees.tree_hash(params)


def test_whether_it_takes_text() -> None:
    assert model_with(unet=TEXT).takes_text and not model_with().takes_text


@pytest.mark.parametrize(("unet", "multiple"), [(NO_TEXT, 4), (PLAIN, 2)])
def test_sides_of_pictures(unet: Any, multiple: int) -> None:
    """The autoencoder halves once, and the U-Net once a level but the last."""
    assert model_with(unet=unet).multiple == multiple


def test_a_model_cannot_be_changed_by_accident() -> None:
    model = model_with()
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.task = "sr"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Model(VAE, model.network, model.schedule)  # type: ignore[misc, call-arg]

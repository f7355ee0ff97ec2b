"""How an autoencoder starts, and what its latents are scaled to at its end."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from codi_jax.builder import build_pipeline
from codi_jax.checkpoint.pipeline import Pipeline, with_params

from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.parallel.mesh import make_mesh
from codi_jax.parallel.sharding import param_shardings
from codi_jax.train.autoencoder_start import start_autoencoder
from codi_jax.train.rescale import unit_latents
from codi_jax.typing import UserError
from configs import autoencoder, sr

PLACE = partial(param_shardings, make_mesh(4, 2))


def pictures():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3))
    noise = rng.integers(-20, 20, (4, 32, 32, 3))
    return np.clip(coarse.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn() -> Pipeline:
    pipeline = build_pipeline(autoencoder.get_config("tiny"), np.float32)
    return with_params(pipeline, jax.random.key(0), PLACE)


def error(pipeline: Pipeline) -> float:
    vae, x = make_autoencoder(pipeline.vae), to_signed(pictures())
    variables = {"params": jax.device_get(pipeline.params["vae"])}
    made = jax.jit(lambda v: vae.apply(v, x, jax.random.key(0))[0])(variables)
    return float(np.square(made - x).mean())


def test_a_linear_start_is_placed_as_the_parameters_were(drawn: Pipeline) -> None:
    assert start_autoencoder("random", drawn, pictures, PLACE) is drawn
    started = start_autoencoder("linear", drawn, pictures, PLACE)
    assert jax.tree.structure(started.params) == jax.tree.structure(drawn.params)
    for a, b in zip(*map(jax.tree.leaves, (started.params, drawn.params)), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
    assert error(started) < 0.2 * error(drawn)


def test_where_it_cannot_be(drawn: Pipeline) -> None:
    kl = AutoencoderConfig(block_out_channels=(4, 8), norm_num_groups=2)
    unet = build_pipeline(sr.get_config("tiny"), np.float32)
    for pipeline, says in (
        (dataclasses.replace(drawn, vae=kl), "is an AutoencoderKL"),
        (dataclasses.replace(drawn, directory=Path("m")), "trained from its start"),
        (unet, "config.task='autoencoder'"),
    ):
        with pytest.raises(UserError, match=says):
            start_autoencoder("linear", pipeline, pictures, PLACE)
    with pytest.raises(UserError, match="'svd'"):
        start_autoencoder("svd", drawn, pictures, PLACE)


def test_latents_get_a_mean_square_of_one(drawn: Pipeline) -> None:
    started = start_autoencoder("linear", drawn, pictures, PLACE)
    params = jax.device_get(started.params)
    scaled = unit_latents(started, params, pictures())
    vae = make_autoencoder(scaled.vae)
    x = to_signed(pictures())
    z = jax.jit(lambda p: vae.apply({"params": p}, x, method="encode"))(params["vae"])
    np.testing.assert_allclose(np.square(z).mean(), 1.0, rtol=1e-5)
    assert scaled.vae.scaling_factor != 1.0

"""How an autoencoder starts: at random, or as the best linear code of the pictures."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.checkpoint.parameters import with_params
from codi_jax.model import AutoencoderModel
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.parallel.mesh import make_mesh
from codi_jax.parallel.sharding import param_shardings
from codi_jax.run.plan import plan
from codi_jax.train.autoencoder_start import check_autoencoder_start, linear_start
from codi_jax.typing import UserError
from configs import autoencoder
from tests.smallest import smallest

PLACE = partial(param_shardings, make_mesh(4, 2))


def pictures() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3))
    noise = rng.integers(-20, 20, (4, 32, 32, 3))
    return np.clip(coarse.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn() -> AutoencoderModel:
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    with jax.numpy_dtype_promotion("standard"):
        return with_params(plan(config).model, jax.random.key(0), PLACE)


def error(model: AutoencoderModel, params: Any) -> float:
    vae, x = make_autoencoder(model.vae), to_signed(jnp.asarray(pictures()))
    variables = {"params": jax.device_get(params["vae"])}
    made = jax.jit(lambda v: vae.apply(v, x, jax.random.key(0))[0])(variables)
    return float(np.square(made - x).mean())


def test_a_linear_start_is_placed_as_the_parameters_were(drawn: AutoencoderModel) -> None:
    started = linear_start(drawn, drawn.params, pictures(), PLACE)
    assert jax.tree.structure(started) == jax.tree.structure(drawn.params)
    for a, b in zip(*map(jax.tree.leaves, (started, drawn.params)), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
    assert error(drawn, started) < 0.2 * error(drawn, drawn.params)


def test_where_it_can_be(drawn: AutoencoderModel) -> None:
    check_autoencoder_start("linear", drawn)
    check_autoencoder_start("random", plan(smallest()).model)


def test_where_it_cannot_be(drawn: AutoencoderModel) -> None:
    kl = AutoencoderConfig(block_out_channels=(4, 8), norm_num_groups=2)
    for model, says in (
        (dataclasses.replace(drawn, vae=kl), "is an AutoencoderKL"),
        (dataclasses.replace(drawn, directory=Path("m")), "trained from its start"),
        (plan(smallest()).model, "config.task='autoencoder'"),
    ):
        with pytest.raises(UserError, match=says):
            check_autoencoder_start("linear", model)
    with pytest.raises(UserError, match="'svd'"):
        check_autoencoder_start("svd", drawn)

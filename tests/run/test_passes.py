"""U-Net passes: what a step costs, whatever the method."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array

from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.run.passes import pass_flops, step_passes
from codi_jax.run.plan import plan
from codi_jax.train.flops import count_flops
from codi_jax.typing import Params
from configs import autoencoder
from tests.smallest import shrunk, smallest


def test_a_plain_step_is_a_pass_forwards_and_two_backwards() -> None:
    """And the encoder's share; the first layer has no gradient for its input."""
    config = smallest("finetune", task="prior", model__adapter="none", model__trainable="unet/.*")
    planned = plan(config)
    model, size = planned.model, config.data.size
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    vae = make_autoencoder(model.vae)

    def encode(params: Params, x: Array) -> Array:
        return vae.apply({"params": params}, x, method="encode")

    encoder = count_flops(encode, model.shapes["vae"], pictures) / pass_flops(planned)
    assert step_passes(planned) / config.batch_size - encoder == pytest.approx(3, abs=0.1)


def test_what_a_method_adds_is_counted() -> None:
    """A target network is one pass more, with its adapter's; a frozen U-Net saves about one."""
    passes = {
        name: step_passes(plan(smallest(name))) / 8 for name in ("finetune", "codi", "pe_codi")
    }
    assert 1 < passes["codi"] - passes["finetune"] < 2
    assert 0.3 < passes["codi"] - passes["pe_codi"] < 1.5


def test_recomputing_is_no_pass() -> None:
    plain, again = (plan(smallest(model__remat=how)) for how in ("none", "blocks"))
    assert step_passes(plain) == step_passes(again)
    assert pass_flops(plain) == pass_flops(again)


def test_an_autoencoder_alone_has_no_passes() -> None:
    config = autoencoder.get_config("tiny")
    config.model.vae_init = "random"
    assert pass_flops(plan(shrunk(config))) is None

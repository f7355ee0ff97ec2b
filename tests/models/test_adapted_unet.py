"""The U-Net with each adapter, on a network of two tiny levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.adapters.controlnet import ControlNet, ControlNetConfig
from codi_jax.models.adapters.encoder_copy import encoder_names
from codi_jax.models.adapters.t2i import T2I
from codi_jax.models.configs import UNetConfig
from codi_jax.typing import UserError
from tests.models.tiny_unets import (
    COND,
    ENCODER,
    IDS,
    NO_TEXT,
    PLAIN,
    POOLED,
    TEXT,
    T,
    Z,
    cond_for,
    network,
    normal,
    predict,
    with_mu,
)

pytestmark = pytest.mark.xdist_group("adapters")

SD15 = UNetConfig().encoder


@pytest.fixture(scope="module")
def params(random_params):
    """Random everywhere: unlike after init, the adapter's encoder is not the U-Net's."""
    return {
        (adapter, config.cross_attention_dim): random_params(network(adapter, config).init)
        for adapter in ("mix", "controlnet")
        for config in (TEXT, NO_TEXT)
    }


def without_residual(tree):
    zero = {
        k: jax.tree.map(np.zeros_like, v) if k.startswith(("controlnet_d", "controlnet_m")) else v
        for k, v in tree["adapter"].items()
    }
    return {**tree, "adapter": zero}


@pytest.mark.parametrize("config", [TEXT, NO_TEXT], ids=["text", "no text"])
@pytest.mark.parametrize(
    ("adapter", "silence"),
    [("mix", lambda tree: with_mu(tree, 0)), ("controlnet", without_residual)],
)
def test_a_silent_adapter_is_the_prior(params, adapter, silence, config):
    tree = params[adapter, config.cross_attention_dim]
    cond = cond_for(config)
    prior = predict(network("none", config), {"unet": tree["unet"]}, Z, T, cond)
    assert prior.shape == (2, 4, 6, 4)
    silent = predict(network(adapter, config), silence(tree), Z, T, cond)
    np.testing.assert_allclose(silent, prior, atol=1e-6)
    loud = predict(network(adapter, config), tree, Z, T, cond)
    assert np.abs(loud - prior).max() > 1e-3


@pytest.mark.parametrize("adapter", ["mix", "controlnet"])
def test_kept_features_equal_recomputed_ones(params, adapter):
    model, tree = network(adapter), params[adapter, 6]
    features = model.condition(tree, COND)
    kept = predict(model, tree, Z, T, {"text": COND["text"], "features": features})
    np.testing.assert_allclose(kept, predict(model, tree, Z, T, COND), atol=2e-6)
    other = jax.tree.map(lambda x: x + 1, features)
    changed = predict(model, tree, Z, T, {**COND, "features": other})
    assert np.abs(changed - kept).max() > 1e-3  # they are read, not computed again


def test_the_controlnet_reads_z_t_text_and_hint(params):
    model, tree = network("controlnet"), params["controlnet", 6]
    prior_free = {**tree, "unet": jax.tree.map(np.copy, tree["unet"])}
    for name in ENCODER - {"time_embedding"}:  # a prior whose encoder is silent
        prior_free["unet"][name] = jax.tree.map(np.zeros_like, tree["unet"][name])
    ours = predict(model, prior_free, Z, T, COND)
    changed = [predict(model, prior_free, Z + 1, T, COND)] + [
        predict(model, prior_free, Z, T, {**COND, name: COND[name] + 1})
        for name in ("text", "image")
    ]
    for other in changed:
        assert np.abs(other - ours).max() > 1e-4


@pytest.mark.parametrize("adapter", ["mix", "controlnet"])
def test_the_encoder_is_copied_at_init_and_again(quick_jit, random_params, adapter):
    model = network(adapter, PLAIN)
    names = ENCODER - {"down_blocks_1"}
    fresh = quick_jit(model.init)(jax.random.key(0))
    assert set(encoder_names(PLAIN)) == names
    for name in names:
        jax.tree.map(np.testing.assert_array_equal, fresh["adapter"][name], fresh["unet"][name])
    own = {k: v for k, v in fresh["adapter"].items() if k not in names}
    if adapter == "mix":
        assert own == {"mu": 0.0}
    else:
        zeros = {k: v for k, v in own.items() if k != "controlnet_cond_embedding"}
        assert len(zeros) == 3
        zeros["hint"] = own["controlnet_cond_embedding"]["conv_out"]
        assert not any(np.any(x) for x in jax.tree.leaves(zeros))
        assert np.any(own["controlnet_cond_embedding"]["conv_in"]["kernel"])

    prior = random_params(model.init)["unet"]
    loaded = model.copy_encoder({"unet": prior, "adapter": fresh["adapter"]})
    for name in names:
        jax.tree.map(np.testing.assert_array_equal, loaded["adapter"][name], loaded["unet"][name])
    assert {k: v for k, v in loaded["adapter"].items() if k not in names} == own


@pytest.mark.parametrize("adapter", ["mix", "controlnet"])
def test_bf16_computes_in_bf16_and_returns_float32(params, random_params, quick_jit, adapter):
    # flax's own GroupNorm relies on implicit promotion of bfloat16.
    with jax.numpy_dtype_promotion("standard"):
        model = network(adapter, dtype=jnp.bfloat16)
        features = jax.eval_shape(model.condition, params[adapter, 6], COND)
        assert {x.dtype for x in jax.tree.leaves(features)} == {jnp.dtype(jnp.bfloat16)}
        output = jax.eval_shape(model.predict, params[adapter, 6], Z, T, COND)
        assert output.dtype == jnp.float32

        model, cond = network(adapter, PLAIN, dtype=jnp.bfloat16), cond_for(PLAIN)
        tree = random_params(model.init)
        ours = quick_jit(model.predict)(tree, Z, T, cond)
    exact = predict(network(adapter, PLAIN), tree, Z, T, cond)
    assert 0 < np.abs(ours - exact).max() < 0.1 * np.abs(exact).max()


def test_sdxls_prompt_is_read_by_both_encoders(random_params):
    model = network("mix", POOLED)
    assert "add_embedding" in encoder_names(POOLED)
    tree = random_params(model.init)
    cond = {**COND, "text_embeds": normal(2, 5, seed=7), "time_ids": jnp.asarray(IDS)}
    ours = predict(model, tree, Z, T, cond)
    for part in ("unet", "adapter"):
        silent = jax.tree.map(np.zeros_like, tree[part]["add_embedding"])
        other = {**tree, part: {**tree[part], "add_embedding": silent}}
        assert np.abs(predict(model, other, Z, T, cond) - ours).max() > 1e-4


@functools.cache
def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0))


def call(adapter="none", config=TEXT, z=Z, **cond):
    model = network(adapter, config)
    return jax.eval_shape(model.predict, shapes_of(model), z, T, cond)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "needs text"),
        ({"config": NO_TEXT, "text": COND["text"]}, "takes no text"),
        ({"z": Z[:, :3], "text": COND["text"]}, "3x6 are no multiple of 2"),
        ({"z": Z[..., :3], "text": COND["text"]}, "reads 4 channels but was given 3"),
        ({"adapter": "mix", "text": COND["text"]}, r"mix adapter needs cond\['latents'\].*text"),
        ({"adapter": "controlnet", "text": COND["text"]}, r"needs cond\['image'\]"),
        ({"text": COND["text"][..., :5]}, "text embeddings of 5 features.*reads 6"),
        ({"config": POOLED, "text": COND["text"]}, r"needs cond\['text_embeds'\] .*time_ids"),
        (
            {"config": POOLED, **COND, "text_embeds": Z[:, 0, 0], "time_ids": jnp.asarray(IDS)},
            r"\[2, 4\] and time_ids \[2, 6\] make 16 .*reads 17",
        ),
        (
            {"adapter": "mix", **COND, "latents": COND["latents"][:, :2]},
            r"latents are \[2, 2, 6\] but z_t is \[2, 4, 6\]",
        ),
        (
            {"adapter": "controlnet", **COND, "image": COND["image"][:, :4]},
            r"image is \[2, 2, 6\] but z_t is \[2, 4, 6\].*2 times",
        ),
        ({"adapter": "controlnet", **COND, "image": COND["image"][..., :1]}, "of 3 .* given 1"),
        (
            {"adapter": "t2i", **COND, "image": COND["image"][:, :4]},
            r"feature is \[2, 2, 6, 4\] where the U-Net's is \[2, 4, 6, 4\]",
        ),
        ({"adapter": "t2i", **COND, "image": COND["image"][:, :6]}, "6x12.*multiples of 4"),
        ({"adapter": "t2i", "text": COND["text"]}, r"t2i adapter needs cond\['image'\]"),
    ],
)
def test_bad_input_is_named(kwargs, says):
    with pytest.raises(UserError, match=says):
        call(**kwargs)


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        (T2I(), r"has channels=\(320, 640, 1280, 1280\) where its U-Net needs \(4, 8, 8\)"),
        (
            ControlNet(config=ControlNetConfig(encoder=SD15)),
            r"block_out_channels=\(320, 640, 1280, 1280\) where its U-Net needs \(4, 8\)",
        ),
    ],
)
def test_an_adapter_of_another_unet_is_refused(adapter, says):
    with pytest.raises(UserError, match=says):
        AdaptedUNet(unet=TEXT, adapter=adapter)


def test_adapters_of_pictures_take_further_channels():
    def config(kind):
        return AdaptedUNet(unet=NO_TEXT).with_adapter(kind, 2, image_channels=4).adapter.config

    assert config("controlnet").conditioning_channels == 4
    assert config("t2i").in_channels == 4


def test_without_its_adapter_the_network_is_the_prior():
    model = network("mix", dtype=jnp.bfloat16, remat="blocks")
    assert model.has_adapter and not model.without_adapter().has_adapter
    assert model.without_adapter() == network("none", dtype=jnp.bfloat16, remat="blocks")

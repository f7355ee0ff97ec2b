"""Equation 10, ControlNet and T2I-Adapter, on a network of two tiny levels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.adapters import AdaptedUNet
from codi_jax.models.configs import ControlNetConfig, UNetConfig
from codi_jax.models.embeddings import Prompt
from codi_jax.models.t2i_adapter import T2IAdapterConfig
from codi_jax.models.unet import UNetDecoder, UNetEncoder
from codi_jax.typing import UserError

pytestmark = pytest.mark.xdist_group("adapters")

TEXT = UNetConfig(
    block_out_channels=(4, 8),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=6,
    norm_num_groups=2,
)
NO_TEXT = dataclasses.replace(TEXT, cross_attention_dim=None)
#: One level without attention, for what must be compiled as a whole.
PLAIN = dataclasses.replace(
    NO_TEXT,
    block_out_channels=(4,),
    down_block_types=("DownBlock2D",),
    mid_block_type="UNetMidBlock2D",
    up_block_types=("UpBlock2D",),
)
HINT = ControlNetConfig(conditioning_embedding_out_channels=(2, 4))
SD15 = UNetConfig().encoder
T2I = T2IAdapterConfig(channels=(4, 8), num_res_blocks=1, downscale_factor=2)
#: SDXL's way to read the prompt.
POOLED = dataclasses.replace(
    TEXT,
    addition_embed_type="text_time",
    addition_time_embed_dim=2,
    projection_class_embeddings_input_dim=17,
)
ENCODER = {"conv_in", "time_embedding", "mid_block", "down_blocks_0", "down_blocks_1"}


def network(adapter, config=TEXT, **kwargs):
    return AdaptedUNet(unet=config, adapter=adapter, **{"controlnet": HINT, "t2i": T2I} | kwargs)


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


Z = normal(2, 4, 6, 4, seed=1)
T = jnp.array([999, 3], jnp.int32)
IDS = np.ones((2, 6), np.int32)
COND = {
    "latents": normal(2, 4, 6, 4, seed=2),
    "image": normal(2, 8, 12, 3, seed=3),
    "text": normal(2, 5, 6, seed=4),
}


def cond_for(config):
    return COND if config is TEXT else {k: v for k, v in COND.items() if k != "text"}


@pytest.fixture(scope="module")
def params(random_params):
    """Random everywhere: unlike after init, the adapter's encoder is not the U-Net's."""
    return {
        (adapter, config.cross_attention_dim): random_params(network(adapter, config).init)
        for adapter in ("mix", "controlnet")
        for config in (TEXT, NO_TEXT)
    }


def with_mu(tree, mu):
    return {**tree, "adapter": {**tree["adapter"], "mu": np.float32(mu)}}


def without_residual(tree):
    zero = {
        k: jax.tree.map(np.zeros_like, v) if k.startswith(("controlnet_d", "controlnet_m")) else v
        for k, v in tree["adapter"].items()
    }
    return {**tree, "adapter": zero}


def predict(model, *args):
    """Not compiled as a whole: the tests share one set of small compiled operations."""
    return np.asarray(model.predict(*args))


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


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_equation_10_by_hand(params, mu):
    tree = with_mu(params["mix", 6], mu)

    def encode(p, *args):
        return UNetEncoder(TEXT).apply({"params": p}, *args[:2], Prompt(args[2]))

    def decode(p, *args):
        return UNetDecoder(TEXT).apply({"params": p}, *args)

    adapter = {k: v for k, v in tree["adapter"].items() if k != "mu"}
    h_eta, _ = encode(adapter, COND["latents"], jnp.zeros_like(T), COND["text"])
    assert len(h_eta.skips) == 4  # conv_in, one layer, the downsampler, one layer
    for t in (T, jnp.array([0, 500], jnp.int32)):  # the same h_eta at every t
        h_theta, temb = encode(tree["unet"], Z, t, COND["text"])
        mixed = jax.tree.map(
            lambda a, b: jnp.asarray((1 - mu) * np.asarray(a) + mu * np.asarray(b)), h_theta, h_eta
        )
        expected = decode(tree["unet"], mixed, temb, COND["text"])
        ours = predict(network("mix"), tree, Z, t, COND)
        np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_at_mu_1_only_the_condition_is_seen(params):
    tree = with_mu(params["mix", 6], 1)
    ours = predict(network("mix"), tree, Z, T, COND)
    np.testing.assert_allclose(predict(network("mix"), tree, 3 - Z, T, COND), ours, atol=1e-6)
    other = {**COND, "latents": COND["latents"] + 1}
    assert np.abs(predict(network("mix"), tree, Z, T, other) - ours).max() > 1e-3


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
def test_init_and_adapt_copy_the_encoder(quick_jit, random_params, adapter):
    model = network(adapter, PLAIN)
    names = ENCODER - {"down_blocks_1"}
    fresh = quick_jit(model.init)(jax.random.key(0))
    assert set(model.encoder_names) == names
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

    loaded = model.adapt({"unet": random_params(model.init)["unet"], "adapter": fresh["adapter"]})
    for name in names:
        jax.tree.map(np.testing.assert_array_equal, loaded["adapter"][name], loaded["unet"][name])
    assert {k: v for k, v in loaded["adapter"].items() if k not in names} == own


def test_remat_changes_memory_only(random_params, quick_jit):
    tree = with_mu(random_params(network("mix", PLAIN).init), 0)

    def loss(model):
        return lambda p: (model.predict(p, Z, T, cond_for(PLAIN)) ** 2).mean()

    plain, remat = (loss(network("mix", PLAIN, remat=flag)) for flag in (False, True))
    value, gradients = quick_jit(jax.value_and_grad(plain))(tree)
    value_remat, gradients_remat = quick_jit(jax.value_and_grad(remat))(tree)
    np.testing.assert_allclose(value_remat, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients_remat,
        gradients,
    )
    assert abs(float(gradients["adapter"]["mu"])) > 1e-5  # mu can leave 0
    equations = [str(e.primitive) for e in jax.make_jaxpr(remat)(tree).eqns]
    # The down block and the mid block of both encoders, and the up block.
    assert sum(name in ("checkpoint", "remat2", "remat") for name in equations) == 5


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
    assert "add_embedding" in model.encoder_names
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


def call(adapter="none", config=TEXT, z=Z, own=None, **cond):
    model = network(adapter, config, **own or {})
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
        ({"adapter": "lora"}, "adapter='lora' is unknown"),
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
        (
            {"adapter": "t2i", "own": {"t2i": T2IAdapterConfig()}},
            r"has channels=\(320, 640, 1280, 1280\) where its U-Net needs \(4, 8, 8\)",
        ),
        (
            {"adapter": "controlnet", "own": {"controlnet": ControlNetConfig(encoder=SD15)}},
            r"block_out_channels=\(320, 640, 1280, 1280\) where its U-Net needs \(4, 8\)",
        ),
    ],
)
def test_bad_input_is_named(kwargs, says):
    with pytest.raises(UserError, match=says):
        call(**kwargs)


def test_further_channels_of_the_condition_start_silent_and_learn():
    """The copied encoder reads them with zero weights, so it is the U-Net's encoder still."""
    model = AdaptedUNet(unet=PLAIN).with_adapter("mix", 2, extra_latents=3)
    params = model.init(jax.random.key(0))
    kernel = params["adapter"]["conv_in"]["kernel"]
    assert kernel.shape[2] == model.mix_in_channels == 7
    np.testing.assert_array_equal(kernel[:, :, :4], params["unet"]["conv_in"]["kernel"])
    latents = normal(2, 4, 6, 7, seed=3)
    own = model.condition(params, {"latents": latents})
    plain = AdaptedUNet(unet=PLAIN, adapter="mix")
    same = plain.condition({"adapter": params["unet"]}, {"latents": latents[..., :4]})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), own, same)

    def total(adapter):
        skips = model.condition({"adapter": adapter}, {"latents": latents}).skips
        return sum((skip**2).sum() for skip in skips)

    gradient = jax.grad(total)(params["adapter"])["conv_in"]["kernel"]
    assert (abs(gradient[:, :, 4:]) > 0).all()


@pytest.mark.parametrize("kind", ["controlnet", "t2i"])
def test_adapters_of_pictures_take_further_channels(kind):
    model = AdaptedUNet(unet=NO_TEXT).with_adapter(kind, 2, image_channels=4)
    config = model.controlnet if kind == "controlnet" else model.t2i
    channels = config.conditioning_channels if kind == "controlnet" else config.in_channels
    assert channels == 4

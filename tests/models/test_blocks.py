"""embeddings, attention and resnet against independent numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.attention import GEGLU, Attention, AutoencoderAttention
from codi_jax.models.embeddings import sinusoidal_embedding
from codi_jax.models.resnet import Downsample, ResnetBlock, Upsample


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("freq_shift", [0, 1])
@pytest.mark.parametrize("flip", [False, True])
def test_sinusoidal_embedding(flip, freq_shift):
    steps, dim = [0, 1, 250, 999], 8
    ours = sinusoidal_embedding(
        jnp.array(steps, jnp.int32), dim, flip_sin_to_cos=flip, freq_shift=freq_shift
    )
    for row, t in zip(np.asarray(ours), steps, strict=True):
        angles = [t / 10_000 ** (i / (dim // 2 - freq_shift)) for i in range(dim // 2)]
        sin, cos = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
        # float32 angles of up to 999 carry errors of about 999 * 2^-24.
        np.testing.assert_allclose(row, cos + sin if flip else sin + cos, atol=3e-4)
    assert ours.dtype == jnp.float32


def test_geglu_gates_with_the_exact_gelu():
    x, kernel, bias = normal(3, 5), normal(5, 8, seed=1), normal(8, seed=2)
    ours = GEGLU(4).apply({"params": {"proj": {"kernel": kernel, "bias": bias}}}, x)
    h = np.asarray(x, np.float64) @ kernel + bias
    gelu = 0.5 * h[:, 4:] * (1 + np.vectorize(math.erf)(h[:, 4:] / math.sqrt(2)))
    # The tanh approximation is off by up to 5e-4.
    np.testing.assert_allclose(ours, h[:, :4] * gelu, atol=2e-5)


def attention_by_hand(q, k, v):
    logits = q @ k.T / math.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def test_attention_over_text(random_params):
    x, text = normal(1, 5, 6), normal(1, 3, 7, seed=1)
    module = Attention(heads=2, head_dim=4)
    params = random_params(module.init, x, text)["params"]
    assert set(params["to_q"]) == {"kernel"}  # no bias, unlike to_out
    ours = module.apply({"params": params}, x, text)
    p = params
    q, k, v = (
        a[0] @ p[name]["kernel"] for a, name in ((x, "to_q"), (text, "to_k"), (text, "to_v"))
    )
    heads = [attention_by_hand(q[:, s], k[:, s], v[:, s]) for s in (slice(0, 4), slice(4, 8))]
    expected = np.concatenate(heads, -1) @ p["to_out_0"]["kernel"] + p["to_out_0"]["bias"]
    np.testing.assert_allclose(ours[0], expected, atol=2e-6)


def test_autoencoder_attention_is_one_head_with_biases_named_flat(random_params):
    x = normal(2, 3, 2, 8)
    module = AutoencoderAttention(groups=2)
    params = random_params(module.init, x)["params"]
    assert set(params) == {"group_norm", "to_q", "to_k", "to_v", "to_out_0"}
    assert set(params["to_q"]) == {"kernel", "bias"}
    p = params
    ours = module.apply({"params": p}, x)
    grouped = x.reshape(2, 6, 2, 4)
    mean = grouped.mean((1, 3), keepdims=True)
    std = np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    normed = ((grouped - mean) / std).reshape(2, 6, 8)
    normed = normed * p["group_norm"]["scale"] + p["group_norm"]["bias"]
    for i in range(2):
        q, k, v = (
            normed[i] @ p[name]["kernel"] + p[name]["bias"] for name in ("to_q", "to_k", "to_v")
        )
        h = attention_by_hand(q, k, v) @ p["to_out_0"]["kernel"] + p["to_out_0"]["bias"]
        np.testing.assert_allclose(ours[i], x[i] + h.reshape(3, 2, 8), atol=5e-5)


def test_downsample_pads_as_its_network_does():
    """A kernel that only reads its upper left tap shows where the padding went."""
    x = normal(1, 4, 4, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[0, 0] = 1
    params = {"params": {"conv": {"kernel": kernel, "bias": np.zeros(1, np.float32)}}}
    autoencoder = Downsample(asymmetric=True).apply(params, x)
    np.testing.assert_allclose(autoencoder, x[:, ::2, ::2], atol=1e-6)
    unet = np.asarray(Downsample().apply(params, x))
    np.testing.assert_allclose(unet[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(unet[:, :, 0], 0, atol=1e-6)
    np.testing.assert_allclose(unet[:, 1, 1], x[:, 1, 1], atol=1e-6)


def test_upsample_repeats_pixels():
    x = normal(1, 2, 3, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = 1
    params = {"params": {"conv": {"kernel": kernel, "bias": np.zeros(1, np.float32)}}}
    ours = Upsample().apply(params, x)
    repeated = np.kron(x[0, :, :, 0], np.ones((2, 2)))
    np.testing.assert_allclose(ours[0, :, :, 0], repeated, atol=1e-6)


def test_resnet_block_adds_time_and_its_input(random_params):
    x, temb = normal(2, 4, 4, 4), normal(2, 6, seed=1)
    block = ResnetBlock(4, groups=2)
    params = random_params(block.init, x, temb)["params"]
    assert "conv_shortcut" not in params
    assert "conv_shortcut" in random_params(ResnetBlock(8, groups=2).init, x, temb)["params"]
    silent = {**params, "conv2": jax.tree.map(jnp.zeros_like, params["conv2"])}
    np.testing.assert_allclose(block.apply({"params": silent}, x, temb), x, atol=1e-6)
    out = block.apply({"params": params}, x, temb)
    assert np.abs(out - block.apply({"params": params}, x, temb + 1)).max() > 1e-3

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from codi_jax import trees
from codi_jax.checkpoint.names import torch_name
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig
from codi_jax.typing import UserError

#: The content of SD 1.5's text_encoder/config.json.
SD15 = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
SD21 = SD15 | {
    "_name_or_path": "hf-models/stable-diffusion-v2-768x768/text_encoder",
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
#: SDXL's text_encoder_2.
SDXL = SD15 | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
    "torch_dtype": "float16",
}
END = 10
CONFIG = TextEncoderConfig(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=6,
    projection_dim=5,
    eos_token_id=END,
    with_projection=True,
)
#: The end at the end, early with the same token as padding, early with another one, nowhere.
IDS = np.int32(
    [[9, 1, 2, 3, 4, END], [9, 1, 2, END, END, END], [9, END, 0, 0, 0, 0], [9, 1, 2, 3, 4, 0]]
)


def config(**changes):
    return TextEncoderConfig.from_config(CONFIG.to_config() | changes)


@pytest.fixture(scope="module")
def variables(random_params):
    return random_params(CLIPTextEncoder(CONFIG).init, IDS)


@pytest.fixture(scope="module")
def apply(variables, quick_jit):
    compiled = functools.cache(lambda *args: quick_jit(CLIPTextEncoder(*args).apply))

    def run(ids, config=CONFIG, variables=variables, dtype=jnp.float32):
        return jax.tree.map(np.asarray, compiled(config, dtype)(variables, ids))

    return run


def reference(params, ids, config, act):
    """One text [S] in float64: hidden states of all layers, and after the final norm."""
    p = {path: np.asarray(leaf, np.float64) for path, leaf in trees.flatten(params).items()}

    def dense(x, name):
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    embeddings = "text_model/embeddings/{}_embedding/embedding"
    x = p[embeddings.format("token")][ids] + p[embeddings.format("position")][: len(ids)]
    states = [x]
    for i in range(config.num_hidden_layers):
        layer = f"text_model/encoder/layers_{i}"
        h = norm(x, f"{layer}/layer_norm1")
        q, k, v = (dense(h, f"{layer}/self_attn/{name}_proj") for name in "qkv")
        mixed = np.zeros_like(x)
        width = x.shape[1] // config.num_attention_heads
        for head in range(config.num_attention_heads):
            part = slice(head * width, (head + 1) * width)
            for s in range(len(ids)):
                weights = np.exp(k[: s + 1, part] @ q[s, part] / np.sqrt(width))
                mixed[s, part] = weights @ v[: s + 1, part] / weights.sum()
        x = x + dense(mixed, f"{layer}/self_attn/out_proj")
        h = dense(norm(x, f"{layer}/layer_norm2"), f"{layer}/mlp/fc1")
        x = x + dense(act(h), f"{layer}/mlp/fc2")
        states.append(x)
    return states, norm(x, "text_model/final_layer_norm")


@pytest.mark.parametrize(
    ("hidden_act", "act"),
    [
        ("quick_gelu", lambda x: x / (1 + np.exp(-1.702 * x))),
        ("gelu", lambda x: x * (1 + erf(x / np.sqrt(2))) / 2),
    ],
)
def test_what_it_computes(apply, variables, hidden_act, act):
    got = apply(IDS[:2], config(hidden_act=hidden_act))
    assert {h.dtype for h in got} == {jnp.dtype(jnp.float32)}
    for b, end in enumerate((5, 3)):
        states, last = reference(variables["params"], IDS[b], CONFIG, act)
        np.testing.assert_allclose(got.last_hidden_state[b], last, atol=1e-5)
        np.testing.assert_allclose(got.penultimate[b], states[-2], atol=1e-5)
        projection = variables["params"]["text_projection"]["kernel"]
        np.testing.assert_allclose(got.pooled[b], last[end] @ projection, atol=1e-5)


def test_a_common_offset_of_all_channels_is_normalised_away(apply, variables):
    params = trees.flatten(variables["params"])
    path = "text_model/embeddings/position_embedding/embedding"
    far = {"params": trees.unflatten(params | {path: params[path] + np.float32(1000)})}
    near, shifted = apply(IDS), apply(IDS, variables=far)
    np.testing.assert_allclose(shifted.last_hidden_state, near.last_hidden_state, atol=2e-3)


def test_later_tokens_change_nothing_before(apply):
    ids = IDS[:1]
    changed = ids.copy()
    changed[0, 3] = 7
    for name in ("last_hidden_state", "penultimate"):
        a, b = (getattr(apply(i), name)[0] for i in (ids, changed))
        np.testing.assert_allclose(a[:3], b[:3], atol=1e-5)
        assert (np.abs(a - b).max(axis=-1)[3:] > 1e-3).all()
    short, full = (apply(i).last_hidden_state for i in (ids[:, :3], ids))
    np.testing.assert_allclose(short, full[:, :3], atol=1e-6)


@pytest.mark.parametrize(
    ("eos_token_id", "positions"),
    [
        (END, [5, 3, 1, 0]),  # its first occurrence; transformers takes position 0 if none
        (3, [3, 0, 0, 3]),
        (2, [5, 3, 1, 0]),  # legacy: the highest id; here 9, at the start, where END is absent
    ],
)
def test_pooled_is_the_end_of_text(apply, variables, eos_token_id, positions):
    c = config(architectures=["CLIPTextModel"], eos_token_id=eos_token_id)
    got = apply(IDS, c)
    assert "text_projection" in variables["params"]  # unused by a model without projection
    ends = got.last_hidden_state[np.arange(4), positions]
    np.testing.assert_allclose(got.pooled, ends, atol=1e-5)


def test_bfloat16_inside(apply):
    full = apply(IDS)
    # jax's own attention relies on implicit promotion of bfloat16.
    with jax.numpy_dtype_promotion("standard"):
        half = apply(IDS, dtype=jnp.bfloat16)
    for a, b in zip(half, full, strict=True):
        assert a.dtype == jnp.float32
        assert 1e-4 < np.abs(a - b).max() < 0.05 * np.abs(b).max()


def test_ids_beyond_the_vocabulary_do_not_pass_for_text(apply):
    bad = IDS.copy()
    bad[1, 2] = 11
    got = apply(bad).last_hidden_state
    assert np.isnan(got[1]).any()
    assert np.isfinite(got[[0, 2, 3]]).all()


def test_too_many_tokens(apply):
    with pytest.raises(UserError, match="7 tokens a text.*max_position_embeddings=6"):
        apply(np.zeros((1, 7), np.int32))


@pytest.mark.parametrize("with_projection", [False, True])
def test_parameters_are_named_as_in_the_files(with_projection):
    kind = "CLIPTextModelWithProjection" if with_projection else "CLIPTextModel"
    c = config(architectures=[kind], num_hidden_layers=1)
    shapes = jax.eval_shape(CLIPTextEncoder(c).init, jax.random.key(0), IDS)["params"]
    layer = "text_model.encoder.layers.0."
    dense = [f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")] + ["mlp.fc1", "mlp.fc2"]
    both = [layer + n for n in [*dense, "layer_norm1", "layer_norm2"]]
    both.append("text_model.final_layer_norm")
    want = {f"{n}.{kind}" for n in both for kind in ("weight", "bias")}
    want |= {f"text_model.embeddings.{n}_embedding.weight" for n in ("token", "position")}
    want |= {"text_projection.weight"} if with_projection else set()
    assert {torch_name(path) for path in trees.flatten(shapes)} == want
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_published_configs_are_understood():
    sd15, sd21, sdxl = map(TextEncoderConfig.from_config, (SD15, SD21, SDXL))
    assert (sd15.hidden_size, sd15.num_hidden_layers, sd15.hidden_act) == (768, 12, "quick_gelu")
    assert (sd21.num_attention_heads, sd21.num_hidden_layers, sd21.hidden_act) == (16, 23, "gelu")
    assert (sdxl.with_projection, sdxl.projection_dim) == (True, 1280)
    assert not sd15.with_projection and not sd21.with_projection
    assert {c.eos_token_id for c in (sd15, sd21, sdxl)} == {2}
    shapes = jax.eval_shape(CLIPTextEncoder(sd15).init, jax.random.key(0), np.zeros((1, 77), int))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 123_060_480  # as published
    # SD 1.4's file has no projection_dim; transformers 5 says dtype, not torch_dtype.
    older = {k: v for k, v in SD15.items() if k != "projection_dim"}
    assert TextEncoderConfig.from_config(older).projection_dim == 512
    assert TextEncoderConfig.from_config(SD15 | {"dtype": "float32"}) == sd15


@pytest.mark.parametrize("published", [SD15, SD21, SDXL])
def test_configs_survive_their_json(published):
    c = TextEncoderConfig.from_config(published)
    written = json.loads(json.dumps(c.to_config()))
    assert TextEncoderConfig.from_config(written) == c
    assert written.items() <= published.items()  # nothing but transformers' own keys


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["CLIPModel"]}, r"architectures=\['CLIPModel'\] is not supported"),
        ({"architectures": None}, "architectures=None.*CLIPTextModelWithProjection"),
        ({"model_type": "clip"}, "model_type='clip' is not supported"),
        ({"bogus_key": 3}, "unknown key 'bogus_key'.*3"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not implemented.*quick_gelu, gelu"),
        ({"num_attention_heads": 7}, "hidden_size=768 is no multiple of num_attention_heads=7"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 is no whole number from 1 up"),
        ({"vocab_size": "49408"}, "vocab_size='49408' is of a wrong type: int"),
        ({"eos_token_id": [2, 3]}, r"eos_token_id=\(2, 3\) is of a wrong type: int"),
        ({"layer_norm_eps": None}, "layer_norm_eps=None is of a wrong type: float"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_not_implemented_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        TextEncoderConfig.from_config(SD15 | changes)

"""The text encoder against transformers, through the files that transformers writes."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
transformers = pytest.importorskip("transformers", reason="parity extra")

from safetensors.numpy import load_file, save_file  # noqa: E402

from codi_jax.checkpoint import diffusers_format as df  # noqa: E402
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig  # noqa: E402

END = 36
SIZES = {
    "vocab_size": END + 1,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 10,
    "projection_dim": 12,
    "eos_token_id": END,
}
#: Ends at the end, in the middle and at once; then padding with the end token and with another.
IDS = np.int32(
    [
        [35, 4, 8, 15, 16, 23, 2, END],
        [35, 4, 8, 15, END, END, END, END],
        [35, END, 0, 0, 0, 0, 0, 0],
        [35, 31, 7, END, 0, 0, 0, 0],
    ]
)


def make(name, **changes):
    """A random model of transformers; as initialised by default its attention is all but even."""
    torch.manual_seed(0)
    settings = SIZES | {"bos_token_id": 35, "initializer_factor": 4.0} | changes
    return getattr(transformers, name)(transformers.CLIPTextConfig(**settings))


def init(model):
    return lambda key: model.init(key, IDS)["params"]


def load(parity, directory):
    model = CLIPTextEncoder(parity.config(TextEncoderConfig, directory))
    return model, parity.params(init(model), directory)


def assert_same(parity, model, params, theirs):
    """All three outputs within 2e-5 of their scale."""
    got = parity.ours(model.apply, {"params": params}, IDS)
    with torch.no_grad():
        out = theirs(*parity.torch(IDS), output_hidden_states=True)
    pooled = out.text_embeds if model.config.with_projection else out.pooler_output
    want = (out.last_hidden_state, out.hidden_states[-2], pooled)
    errors = [parity.error(a, b) for a, b in zip(got, want, strict=True)]
    assert max(errors) < 2e-5, errors


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("CLIPTextModel", {"hidden_act": "quick_gelu"}),
        ("CLIPTextModel", {"hidden_act": "gelu", "eos_token_id": 2}),
        ("CLIPTextModelWithProjection", {"hidden_act": "gelu", "eos_token_id": 2}),
        ("CLIPTextModelWithProjection", {"hidden_act": "quick_gelu", "layer_norm_eps": 0.1}),
        ("CLIPTextModel", {"num_hidden_layers": 1, "eos_token_id": 16}),  # not in all texts
    ],
    ids=lambda p: p if isinstance(p, str) else "-".join(map(str, p.values())),
)
def test_outputs(parity, name, changes):
    theirs = make(name, **changes)
    model, params = load(parity, parity.save(theirs))
    assert model.config.with_projection == (name == "CLIPTextModelWithProjection")
    assert_same(parity, model, params, theirs)


def test_published_layout(parity):
    """Published files have the prefix text_model., and old ones the constant position_ids."""
    theirs = make("CLIPTextModel")
    directory = parity.save(theirs)
    file = directory / "model.safetensors"
    prefix = "text_model."
    tensors = {prefix + k.removeprefix(prefix): v for k, v in load_file(file).items()}
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(10)[None]
    save_file(tensors, file, metadata={"format": "pt"})
    assert_same(parity, *load(parity, directory), theirs)


@pytest.mark.parametrize("name", ["CLIPTextModel", "CLIPTextModelWithProjection"])
def test_transformers_reads_what_we_write(parity, tmp_path, name):
    config = TextEncoderConfig(**SIZES, with_projection=name == "CLIPTextModelWithProjection")
    model = CLIPTextEncoder(config)
    shapes = jax.eval_shape(init(model), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype) / 2, shapes)
    df.save_model(tmp_path, config.to_config(), params)
    # transformers looks for a file of another name.
    (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "model.safetensors")
    written = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (written.model_type, written.architectures) == ("clip_text_model", [name])
    cls = getattr(transformers, name)
    theirs, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_same(parity, model, params, theirs)

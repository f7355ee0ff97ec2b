"""CLIP's text encoder as transformers' ``CLIPTextModel`` and ``CLIPTextModelWithProjection``.

Radford et al. 2021 (arXiv:2103.00020), section 2.4: a pre-norm transformer with a causal mask.
Parameters are named as published checkpoints name their tensors (``text_model.encoder.layers.0``
is ``text_model/encoder/layers_0``).
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Self

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from codi_jax.models.clip_layers import ACTIVATIONS, CLIPEncoder, Hidden, layer_norm
from codi_jax.models.from_config import FromConfig
from codi_jax.typing import UserError

#: Architecture in the file -> whether it has ``text_projection``.
ARCHITECTURES = {"CLIPTextModel": False, "CLIPTextModelWithProjection": True}
MODEL_TYPE = "clip_text_model"
TokenIds = Int[Array, "batch tokens"]
#: The end of text token that old files give in place of the true one, see :func:`_end_of_text`.
LEGACY_EOS = 2
#: Keys of transformers' files that say nothing about the computation: initialisation, training,
#: what the tokenizer decides, bookkeeping.
IGNORED = {
    "attention_dropout",
    "bos_token_id",
    "dropout",
    "dtype",
    "initializer_factor",
    "initializer_range",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoderConfig(FromConfig):
    """transformers' ``CLIPTextConfig``; the defaults are transformers', for keys a file omits.

    ``with_projection`` is no key of the file: it follows from ``architectures``. ``projection_dim``
    means something only with it. ``eos_token_id`` 2 is what most published files hold, although
    the true id is 49407.
    """

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512
    eos_token_id: int = 49407
    with_projection: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Build from the content of a text encoder's ``config.json``.

        Raises:
            UserError: another model than CLIP's text encoder, or a key that is unknown or has a
                value that is not implemented.
        """
        values = {key: value for key, value in config.items() if key not in IGNORED}
        found = values.pop("model_type", MODEL_TYPE)
        if found != MODEL_TYPE:
            raise UserError(
                f"{cls.__name__}: model_type={found!r} is not supported (only {MODEL_TYPE!r}); "
                "give the folder text_encoder/ of a Stable Diffusion checkpoint."
            )
        architectures = values.pop("architectures", None)
        names = architectures if isinstance(architectures, list) else []
        if len(names) != 1 or str(names[0]) not in ARCHITECTURES:
            raise UserError(
                f"{cls.__name__}: architectures={architectures!r} is not supported (only one of "
                f"{', '.join(ARCHITECTURES)}); give the folder text_encoder/ of a Stable "
                "Diffusion checkpoint."
            )
        return super().from_config(values | {"with_projection": ARCHITECTURES[names[0]]})

    def to_config(self) -> dict[str, object]:
        """The config dict, JSON-ready, as transformers reads it."""
        values = super().to_config()
        names = {has: name for name, has in ARCHITECTURES.items()}
        architecture = names[self.with_projection]
        del values["with_projection"]
        return {"architectures": [architecture], "model_type": MODEL_TYPE, **values}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "eos_token_id" else 1
            if field.type is int and not (type(value) is int and value >= least):
                raise UserError(
                    f"TextEncoderConfig: {field.name}={value!r} is no whole number from {least} up."
                )
        eps = self.layer_norm_eps
        if not (isinstance(eps, float) and eps > 0):
            raise UserError(f"TextEncoderConfig: layer_norm_eps={eps!r} is no positive number.")
        if self.hidden_act not in ACTIVATIONS:
            raise UserError(
                f"TextEncoderConfig: hidden_act={self.hidden_act!r} is not implemented; "
                f"choose from {', '.join(ACTIVATIONS)}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"TextEncoderConfig: hidden_size={self.hidden_size} is no multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )


class CLIPTextOutput(NamedTuple):
    """What diffusion models read of a text, all float32.

    Attributes:
        last_hidden_state: ``hidden_size`` features after the final layer norm, which SD 1.x and
            2.x read.
        penultimate: what enters the last layer, not normalised, which SDXL reads.
        pooled: the ``last_hidden_state`` of the end of text token; with a projection, the text
            embedding of ``projection_dim`` features made of it.
    """

    last_hidden_state: Hidden
    penultimate: Hidden
    pooled: Float[Array, "batch pooled_features"]


class _Embeddings(nn.Module):
    config: TextEncoderConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, input_ids: TokenIds) -> Hidden:
        c = self.config
        embed = partial(nn.Embed, features=c.hidden_size, dtype=self.dtype)
        tokens = embed(c.vocab_size, name="token_embedding")(input_ids)
        positions = jnp.arange(input_ids.shape[1])
        return tokens + embed(c.max_position_embeddings, name="position_embedding")(positions)


class _TextModel(nn.Module):
    config: TextEncoderConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, input_ids: TokenIds) -> tuple[Hidden, Hidden]:
        x = _Embeddings(self.config, self.dtype, name="embeddings")(input_ids)
        x, penultimate = CLIPEncoder(self.config, self.dtype, True, name="encoder")(x)
        return layer_norm(x, self.config, self.dtype, "final_layer_norm"), penultimate


class CLIPTextEncoder(nn.Module):
    """Token ids -> hidden states and the pooled text.

    Args of the call:
        input_ids: [B, S] int32 in [0, vocab_size), S at most ``max_position_embeddings``; an id
            beyond the vocabulary makes its text NaN. There is no padding mask: padding is attended
            to, as in Stable Diffusion.

    Raises:
        UserError: more tokens than ``max_position_embeddings``.
    """

    config: TextEncoderConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, input_ids: TokenIds) -> CLIPTextOutput:
        c = self.config
        if input_ids.shape[1] > c.max_position_embeddings:
            raise UserError(
                f"{input_ids.shape[1]} tokens a text, but this text encoder has "
                f"max_position_embeddings={c.max_position_embeddings}: truncate the texts."
            )
        last, penultimate = _TextModel(c, self.dtype, name="text_model")(input_ids)
        end = _end_of_text(input_ids, c.eos_token_id)
        pooled = jnp.take_along_axis(last, end[:, None, None], axis=1)[:, 0]
        if c.with_projection:
            project = nn.Dense(
                c.projection_dim, use_bias=False, dtype=self.dtype, name="text_projection"
            )
            pooled = project(pooled)
        outputs = (h.astype(jnp.float32) for h in (last, penultimate, pooled))
        return CLIPTextOutput(*outputs)


def _end_of_text(input_ids: TokenIds, eos_token_id: int) -> Int[Array, " batch"]:
    """Position [B] of each text's end; 0 where a text has none, as in transformers.

    The first one counts: Stable Diffusion 1.x pads with the same token. Files that stem from old
    transformers hold a wrong id, 2; there the end is the highest id, as in CLIP's vocabulary.
    """
    if eos_token_id == LEGACY_EOS:
        return jnp.argmax(input_ids, axis=-1)
    return jnp.argmax(input_ids == eos_token_id, axis=-1)

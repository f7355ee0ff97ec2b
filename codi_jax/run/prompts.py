"""What a run's U-Net reads of its prompts, and data that was encoded ahead of training."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.data.pipeline import Batch, TrainIterator
from codi_jax.data.transforms import ENCODED, LATENTS, PROMPTS, prompts_differ
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.conditioning import size_ids
from codi_jax.run.config import ConfigDict
from codi_jax.typing import Array, UserError

#: ``texts(prompts) -> condition entries`` [len(prompts), ...].
TextFn = Callable[[Sequence[str]], dict[str, Array]]
#: uint8 [B, H, W, 3] -> latents.
PictureFn = Callable[[Array | np.ndarray], Array]
#: Tokens of a prompt, in CLIP's text encoders.
TOKENS = 77


def prompt_shapes(model: AutoencoderModel) -> dict[str, jax.ShapeDtypeStruct]:
    """Condition entries [1, ...] of one prompt; none for a U-Net that takes no text."""
    if not isinstance(model, Model) or model.network.unet.cross_attention_dim is None:
        return {}
    unet = model.network.unet
    shapes: dict[str, tuple[int, ...]] = {
        "text": (1, TOKENS, model.network.unet.cross_attention_dim)
    }
    if unet.addition_embed_type is not None:
        shapes |= {"text_embeds": (1, unet.pooled_dim), "time_ids": (1, 6)}
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}


def encode_prompt(
    prompt: str, model: AutoencoderModel, side: int
) -> tuple[dict[str, Array], dict[str, Array], TextFn | None]:
    """What the U-Net reads of ``prompt``, and of no prompt.

    Where each picture has its own prompt, the first is empty, and the third encodes prompts:
    the text encoder is kept only then.

    Args:
        prompt: ``config.model.prompt``.
        model: what reads it.
        side: of the training pictures in pixels, which SDXL reads too.

    Raises:
        UserError: the text encoder is absent.
    """
    if not isinstance(model, Model) or not model.takes_text:
        return {}, {}, None
    check_text(model)
    assert model.directory is not None
    encoder = PromptEncoder(model.directory)

    def complete(text: dict[str, Array]) -> dict[str, Array]:
        if "text_embeds" in text:
            text["time_ids"] = size_ids(len(text["text"]), side, side)
        return text

    null = complete(encoder.negative(None))
    if prompts_differ(prompt):
        return {}, null, lambda prompts: complete(encoder(prompts))
    return complete(encoder([prompt])), null, None


def check_text(model: AutoencoderModel) -> None:
    """Raises a UserError for a U-Net that takes text and has no text encoder beside it."""
    if isinstance(model, Model) and model.takes_text and model.directory is None:
        raise UserError(
            "config.model.unet has a cross_attention_dim, but without config.model.pretrained "
            "there is no text encoder: set cross_attention_dim to None."
        )


class EncodedTexts:
    """The data's batches with their prompts encoded, over the strings of the same names."""

    def __init__(self, data: TrainIterator, encode: TextFn) -> None:
        self._data, self._encode = data, encode

    def __next__(self) -> Batch:
        batch = next(self._data)
        if PROMPTS["text"] not in batch:
            return {**batch, **self._encode([*batch["prompt"]])}
        entries = {}
        for name, empty in self._empty.items():
            own = batch.get(PROMPTS.get(name, ""), empty)
            dropped = (batch["prompt"] == "").reshape(-1, *[1] * (empty.ndim - 1))
            entries[name] = np.where(dropped, empty, own)
        return {**batch, **entries}

    @functools.cached_property
    def _empty(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self._encode([""]).items()}

    def get_state(self) -> dict[str, int]:
        """The data's position."""
        return self._data.get_state()

    def set_state(self, state: dict[str, int]) -> None:
        """Go on from a position of the data."""
        self._data.set_state(state)

    def close(self) -> None:
        """Close the data."""
        self._data.close()


def encoded_columns(
    config: ConfigDict, data: TrainIterator, encode_picture: PictureFn, encode_texts: TextFn | None
) -> tuple[str, ...]:
    """The columns of ``prepare --latents --embeddings`` that the data brings.

    They are held against what this run's networks make of the first batch. There are none
    without ``config.data.encoded``.

    Raises:
        UserError: none is there, or they are of other networks or other pictures.
    """
    if not config.data.encoded:
        return ()
    position = data.get_state()
    batch = next(data)
    data.set_state(position)
    columns = tuple(name for name in ENCODED if name in batch)
    if not columns:
        raise UserError(
            f"config.data.encoded=True, but {config.data.source} has none of "
            f"{', '.join(ENCODED)}: make them by `python -m codi_jax.prepare --latents`."
        )
    if LATENTS in columns:
        _check_close(LATENTS, batch[LATENTS][:1], encode_picture(batch["image"][:1]))
    if PROMPTS["text"] in columns:
        if encode_texts is None or config.model.prompt != "{text}":
            raise UserError(
                f"the data brings {PROMPTS['text']}, of captions: they are for a U-Net that reads "
                f"text, and config.model.prompt='{{text}}' ({config.model.prompt!r} now)."
            )
        made = encode_texts([str(batch["text"][0])])["text"]
        _check_close(PROMPTS["text"], batch[PROMPTS["text"]][:1], made)
    return columns


def _check_close(name: str, stored: np.ndarray, encoded: Array) -> None:
    made = np.asarray(encoded, np.float32)
    # Of the same networks they differ by the rounding to float16, or to bfloat16 here.
    if made.shape != stored.shape or np.abs(made - stored).mean() > 0.03 * np.abs(made).mean():
        raise UserError(
            f"the data's {name} {stored.shape[1:]} are not what this run's networks make of the "
            f"first picture, {made.shape[1:]}: they are of another checkpoint, or the task changes "
            "the picture. Prepare them with this one, or set config.data.encoded=False."
        )

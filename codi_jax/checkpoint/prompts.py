"""Prompts to what a U-Net reads of them: tokenizers and text encoders of a pipeline."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.checkpoint.diffusers_format import load_config, load_params
from codi_jax.checkpoint.files import INDEX, load_json
from codi_jax.checkpoint.tokenizer import Tokenizer, load_tokenizer
from codi_jax.models.text_encoder import CLIPTextEncoder, CLIPTextOutput, TextEncoderConfig
from codi_jax.typing import Array, UserError

#: Stable Diffusion 1 and 2 have the first pair, XL both.
PAIRS = (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))


class PromptEncoder:
    """The text half of a diffusers-format directory; loads when it is made.

    Args:
        directory: with ``tokenizer/`` and ``text_encoder/`` (Stable Diffusion XL: also
            ``tokenizer_2/`` and ``text_encoder_2/``).
        dtype: of the computation.

    Raises:
        UserError: a part is absent, or does not fit.
    """

    def __init__(self, directory: str | os.PathLike[str], dtype: DTypeLike = jnp.float32):
        root = Path(directory)
        pairs = [pair for pair in PAIRS if (root / pair[1]).is_dir()]
        if not pairs:
            raise UserError(
                f"{root} has no text_encoder, which its U-Net needs: get that folder (and "
                "tokenizer) of the checkpoint too."
            )
        index = load_json(root / INDEX)
        self._zeros_for_empty = len(pairs) > 1 and index.get("force_zeros_for_empty_prompt", True)
        self._parts = []
        for folder, part in pairs:
            config = TextEncoderConfig.from_config(load_config(root / part))
            tokenizer = load_tokenizer(root / folder)
            _check_fit(root, folder, tokenizer, part, config)
            model = CLIPTextEncoder(config, dtype)
            example = jnp.zeros((1, 2), jnp.int32)
            shapes = jax.eval_shape(model.init, jax.random.key(0), example)["params"]
            params = load_params(root / part, shapes)
            self._parts.append((tokenizer, jax.jit(model.apply), params))

    def __call__(self, prompts: Sequence[str]) -> dict[str, Array]:
        """What a U-Net reads of ``prompts``.

        Returns:
            "text" [B, S, D] float32, and with two encoders "text_embeds" [B, P], the second's
            pooled output (Podell et al. 2023, section 2.1).
        """
        outputs: list[CLIPTextOutput] = [
            encode({"params": params}, jnp.asarray(tokenizer.encode(prompts)))
            for tokenizer, encode, params in self._parts
        ]
        if len(outputs) == 1:
            return {"text": outputs[0].last_hidden_state.astype(jnp.float32)}
        text = jnp.concatenate([output.penultimate for output in outputs], axis=-1)
        return {
            "text": text.astype(jnp.float32),
            "text_embeds": outputs[1].pooled.astype(jnp.float32),
        }

    def negative(self, prompt: str | None) -> dict[str, Array]:
        """What classifier-free guidance leads away from.

        Args:
            prompt: None for the empty prompt, for which Stable Diffusion XL was trained with
                zeros (``force_zeros_for_empty_prompt``).

        Returns:
            The entries of one prompt, [1, ...].
        """
        text = self([prompt or ""])
        if prompt is None and self._zeros_for_empty:
            return jax.tree.map(jnp.zeros_like, text)
        return text


def _check_fit(
    root: Path, folder: str, tokenizer: Tokenizer, part: str, config: TextEncoderConfig
) -> None:
    if (
        tokenizer.vocab_size > config.vocab_size
        or tokenizer.max_length > config.max_position_embeddings
    ):
        raise UserError(
            f"{root}: the {folder} has {tokenizer.vocab_size} tokens and texts of "
            f"{tokenizer.max_length}, but the {part} knows {config.vocab_size} and "
            f"{config.max_position_embeddings}: take both from one checkpoint."
        )

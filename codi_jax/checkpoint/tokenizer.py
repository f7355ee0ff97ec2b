"""The tokenizer of a Stable Diffusion checkpoint: prompts -> token ids.

CLIP's byte-pair encoding with lower case (Radford et al. 2021, section 2.4), run by transformers
from the files of the checkpoint alone: no network, no code out of the checkpoint, no PyTorch.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.typing import UserError

_logger = logging.getLogger(__name__)
CONFIG = "tokenizer_config.json"
#: Beside the configuration: as published, or the one file that transformers 5 saves. The special
#: tokens are required, too: Stable Diffusion 2.x names its padding there and nowhere else.
_PUBLISHED = ("vocab.json", "merges.txt", "special_tokens_map.json")
_SAVED = "tokenizer.json"


class Tokenizer:
    """Made by :func:`load_tokenizer`.

    Attributes:
        max_length: tokens a text, start and end included; 77 for Stable Diffusion.
        vocab_size: every id is below this; the text encoder's ``vocab_size`` must not be smaller.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.max_length: int = tokenizer.model_max_length
        self.vocab_size: int = len(tokenizer)

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """Token ids: start, the text, end, and padding up to ``max_length``.

        Padding is the checkpoint's own: the end token in Stable Diffusion 1.x, "!" in 2.x. A text
        that is too long loses its last tokens, with a warning that shows them.

        Args:
            prompts: B texts, no single string; "" is the unconditional text.

        Returns:
            [B, max_length] int32.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a sequence of texts, not one string.")
        n = self.max_length
        ids = np.full((len(prompts), n), self._tokenizer.pad_token_id, np.int32)
        # verbose=False: transformers' own warning of long texts does not name them.
        texts = self._tokenizer(list(prompts), verbose=False)["input_ids"] if len(prompts) else []
        for row, tokens, prompt in zip(ids, texts, prompts, strict=True):
            if len(tokens) > n:
                lost = self._tokenizer.decode(tokens[n - 1 : -1])
                _logger.warning(
                    "The prompt that starts with %r has %d tokens of at most %d; ignored: %r",
                    *(prompt[:40], len(tokens), n, lost),
                )
                tokens = [*tokens[: n - 1], tokens[-1]]
            row[: len(tokens)] = tokens
        return ids


def load_tokenizer(directory: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in ``directory``, e.g. the folder ``tokenizer/`` of a pipeline.

    Args:
        directory: with ``tokenizer_config.json`` and either ``vocab.json``, ``merges.txt`` and
            ``special_tokens_map.json``, or ``tokenizer.json``.

    Raises:
        UserError: no such directory, files missing or broken, not a CLIP tokenizer; transformers
            is not installed.
    """
    directory = Path(directory)
    _check_files(directory)
    try:
        from transformers import CLIPTokenizer
    except ImportError:
        raise UserError(
            "Reading a tokenizer needs transformers, which is not installed: "
            "pip install 'codi_jax[sd]'"
        ) from None
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # the Rust library's errors are plain Exceptions
        raise UserError(
            f"{directory} cannot be read as a CLIP tokenizer ({error}): get its files again."
        ) from error
    # A start or end that the vocabulary lacks would be appended to it: an id of no meaning.
    for name in ("bos_token", "eos_token", "pad_token"):
        token, index = getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")
        if index is None or (name != "pad_token" and index >= tokenizer.vocab_size):
            raise UserError(
                f"{directory} is not a CLIP tokenizer: {name} {token!r} is not in its vocabulary. "
                "Give the folder tokenizer/ of a Stable Diffusion checkpoint."
            )
    length = tokenizer.model_max_length
    # Where the file has none, transformers puts a number far beyond any text.
    if not (isinstance(length, int) and 2 < length < 1_000_000):
        raise UserError(
            f"{directory / CONFIG}: model_max_length={length!r} is no length of a text; "
            "write the text encoder's max_position_embeddings there (Stable Diffusion: 77)."
        )
    return Tokenizer(tokenizer)


def _check_files(directory: Path) -> None:
    """Raises UserError unless all files are there: transformers would do without some."""
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such folder. Give the folder tokenizer/ of a Stable Diffusion "
            "checkpoint on this machine."
        )
    wanted = (CONFIG,) if (directory / _SAVED).is_file() else (CONFIG, *_PUBLISHED)
    missing = [name for name in wanted if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"{directory} lacks {', '.join(missing)}: copy the whole folder tokenizer/ of the "
            "checkpoint."
        )

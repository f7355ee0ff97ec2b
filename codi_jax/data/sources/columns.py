"""What an element may hold beside its image, caption and name.

A column `depth` is uint16 [H, W] as stored, `mask` uint8 [H, W], any other image column uint8
[H, W, 3] RGB. Image columns are not resized: they have the size of their own file. A column of
strings stays a string, "" where it is missing. Every element of a source has the same keys, but for
"captions": where an image has several captions, a tuple of them all, of which "text" is the first.
"""

import os
from collections.abc import Mapping

import numpy as np

from codi_jax.data import images
from codi_jax.typing import UserError

#: Keys that the elements and the transforms give a meaning of their own. Strings of these
#: names ("name" is a common one) are left out; images are an error.
RESERVED = frozenset({"image", "text", "name", "lr", "captions"})


def check_image_column(column: str, where: str) -> None:
    """Raises a UserError for an image column that cannot have this name."""
    if not column or column in RESERVED:
        raise UserError(f"{where}: an image column cannot be called {column!r}; rename it.")


def load_column(column: str, source: str | os.PathLike[str] | bytes, name: str) -> np.ndarray:
    """Decodes one image column; shapes and dtypes above.

    Args:
        column: its name.
        source: a path, or the bytes of an encoded image file.
        name: what error messages call the file.
    """
    if column == "depth":
        return images.load_depth(source, name)
    if column == "mask":
        return images.load_mask(source, name)
    return images.load_image(source, name)


def caption_of(values: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """An image's caption, and where there are several, all of them to draw from.

    Args:
        values: columns; "text" counts, else "caption". Each is a string or a list of strings.

    Returns:
        The first caption, "" where there is none; and the captions, () where there is one at most.
    """
    for key in ("text", "caption"):
        value = values.get(key)
        if isinstance(value, list | tuple):
            texts = tuple(text for text in value if isinstance(text, str) and text)
            if texts:
                return texts[0], texts if len(texts) > 1 else ()
        elif isinstance(value, str) and value:
            return value, ()
    return "", ()

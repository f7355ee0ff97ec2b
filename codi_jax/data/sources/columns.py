"""What an element may hold beside its image, caption and name.

A column `depth` is uint16 [H, W] as stored, `mask` uint8 [H, W], any other image column uint8
[H, W, 3] RGB. A column of strings stays a string. Image columns are not resized: they have the
size of their own file.
"""

import os
from typing import Any

from codi_jax.data import images
from codi_jax.typing import UserError

#: Keys that the elements and the transforms give a meaning of their own.
RESERVED = frozenset({"image", "text", "name", "lr"})


def check_column(name: str, where: str) -> None:
    """Raises a UserError for a column that cannot have this name."""
    if name in RESERVED:
        raise UserError(f"{where}: column {name!r} would hide the element's own; rename it.")


def load_column(column: str, source: str | os.PathLike[str] | bytes, name: str) -> Any:
    """Decodes one image column; shapes and dtypes above.

    Args:
      column: its name, without "_file_name".
      source: a path, or the bytes of an encoded image file.
      name: what error messages call the file.
    """
    if column == "depth":
        return images.load_depth(source, name)
    if column == "mask":
        return images.load_mask(source, name)
    return images.load_image(source, name)

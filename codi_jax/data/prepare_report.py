"""Samples of prepared shards, to look at."""

import os

import numpy as np

from codi_jax.data import images
from codi_jax.data.prepare_units import is_picture
from codi_jax.data.sources import ArrayRecordSource, Element

_SIDE = 128


def contact_columns(output: str | os.PathLike[str], rows: int = 8) -> dict[str, list[np.ndarray]]:
    """Samples spread over the shards, as columns of a picture grid.

    Returns:
        "image" and every picture column, or, where there is none, six columns of images. uint8
        [H, W, 3] each; depth is scaled to 8 bits.
    """
    source = ArrayRecordSource(f"{os.fspath(output)}/*.array_record")

    def spread(count: int) -> list[Element]:
        return [source[int(i)] for i in np.linspace(0, len(source) - 1, count)]

    shown = spread(rows)
    # Pictures and maps; latents and embeddings are for nobody's eyes.
    keys = [key for key, value in shown[0].items() if is_picture(value)]
    if len(keys) > 1:
        keys.sort(key=lambda key: (key != "image", key))
        return {key: [_visible(element[key]) for element in shown] for key in keys}
    many = [_visible(element["image"]) for element in spread(6 * rows)]
    return {f"image {i + 1}": many[i::6] for i in range(6)}


def _visible(value: np.ndarray) -> np.ndarray:
    if value.dtype == np.uint16:
        value = (value // 257).astype(np.uint8)
    if value.ndim == 2:
        value = np.repeat(value[..., None], 3, axis=-1)
    height, width = value.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return value
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return images.resize(value, size, "area")

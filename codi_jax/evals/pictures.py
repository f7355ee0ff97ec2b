"""Labelled grids of sample pictures, for the reports and for the eye."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from codi_jax.data.images import save_image
from codi_jax.evals.image_metrics import Images
from codi_jax.typing import UserError

#: Smaller pictures are enlarged by a whole factor until their longer side has this many pixels.
CELL = 128
GAP = 4
LABEL = 24
_DPI = 100


def grid(
    columns: Mapping[str, Images],
    path: str | os.PathLike[str],
    max_rows: int = 8,
    title: str | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Write a PNG with one labelled column per entry and one row per example.

    Cells have the size of the largest picture (times a whole number if that is small); every
    picture fills its cell as far as its proportions allow, by nearest neighbour, so that no
    smoothing flatters it. The file is replaced whole or not at all.

    Args:
        columns: the label of each column and its images, equally many in each.
        path: the ``.png`` to write; its folder is made if needed.
        max_rows: further examples are left out.
        title: one line above the labels.

    Returns:
        What was written.

    Raises:
        UserError: no pictures, columns of different lengths, a picture that is not uint8 RGB,
            or a path that cannot be written.
    """
    _check(columns)
    rows = min(max_rows, *(len(images) for images in columns.values()))
    shown = [list(images[:rows]) for images in columns.values()]
    height = max(x.shape[0] for images in shown for x in images)
    width = max(x.shape[1] for images in shown for x in images)
    factor = max(1, -(-CELL // max(height, width)))
    height, width = height * factor, width * factor

    top = LABEL * (2 if title else 1)
    canvas = np.full(
        (top + rows * (height + GAP), GAP + len(shown) * (width + GAP), 3), 255, np.uint8
    )
    for j, images in enumerate(shown):
        for i, image in enumerate(images):
            x = _fit(image, height, width)
            y0 = top + i * (height + GAP) + (height - x.shape[0]) // 2
            x0 = GAP + j * (width + GAP) + (width - x.shape[1]) // 2
            canvas[y0 : y0 + x.shape[0], x0 : x0 + x.shape[1]] = x

    texts = [(label, GAP + j * (width + GAP) + width / 2) for j, label in enumerate(columns)]
    picture = _write(canvas, texts, width, top - LABEL / 2, title)
    save_image(path, picture)
    return picture


def _write(
    canvas: UInt8[np.ndarray, "height width 3"],
    labels: list[tuple[str, float]],
    room: float,
    y: float,
    title: str | None,
) -> UInt8[np.ndarray, "height width 3"]:
    """The canvas with text, centred at pixels (x, y) from the upper left."""
    # Not above: a run's start would wait for it, and its first picture comes later.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    agg = FigureCanvasAgg(figure)
    figure.figimage(canvas, origin="upper")

    def write(text: str, x: float, y: float, room: float) -> None:
        # A character is about 0.6 of the font size wide: shrink what would run into a neighbour.
        size = min(10.0, room * 72 / (_DPI * 0.6 * max(1, len(text))))
        where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
        figure.text(x / width, 1 - y / height, text, parse_math=False, **where)

    for label, x in labels:
        write(label, x, y, room)
    if title:
        write(title, width / 2, LABEL / 2, width)
    agg.draw()
    return np.array(agg.buffer_rgba())[..., :3]


def _fit(image: UInt8[np.ndarray, "_ _ 3"], height: int, width: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Nearest-neighbour resize to the largest size within ``height`` x ``width``."""
    h, w = image.shape[:2]
    ratio = min(height / h, width / w)
    new_h, new_w = max(1, round(h * ratio)), max(1, round(w * ratio))
    return image[np.arange(new_h) * h // new_h][:, np.arange(new_w) * w // new_w]


def _check(columns: Mapping[str, Images]) -> None:
    lengths = {label: len(images) for label, images in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UserError(
            f"a picture grid needs equally many pictures, one or more, per column; got {lengths}."
        )
    for label, images in columns.items():
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UserError(
                    f"column {label!r} holds a {image.dtype} array of shape {image.shape}; "
                    "convert it to uint8 [H, W, 3]."
                )

"""Folders of images as sequences that are read when they are used, matched by name."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import overload

import numpy as np
from jaxtyping import UInt8

from codi_jax.data.images import load_image
from codi_jax.data.sources import FolderSource
from codi_jax.typing import UserError


class ImageFiles(Sequence[UInt8[np.ndarray, "_ _ 3"]]):
    """RGB images of files; each is decoded whenever it is asked for.

    Args:
        root: a folder.
        names: paths below it, in order.
    """

    def __init__(self, root: Path, names: Sequence[str]):
        self.root, self.names = root, tuple(names)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "height width 3"]: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...

    def __getitem__(self, index: int | slice) -> "UInt8[np.ndarray, 'height width 3'] | ImageFiles":
        """Image ``index``, or the files of a slice."""
        if isinstance(index, slice):
            return ImageFiles(self.root, self.names[index])
        return load_image(self.root / self.names[index])


def all_files(folder: Path) -> ImageFiles:
    """Every image below ``folder``, sorted by path; raises UserError if there is none."""
    return ImageFiles(folder, FolderSource(folder).names)


def matched(images: Path, references: Path) -> tuple[ImageFiles, ImageFiles]:
    """The images of two folders in one order, matched by relative path without suffix.

    Raises:
        UserError: an image without its counterpart, or two files of one name, in either folder.
    """
    left, right = _by_stem(images), _by_stem(references)
    for folder, there, other, here in (
        (images, left, references, right),
        (references, right, images, left),
    ):
        lonely = sorted(there.keys() - here.keys())
        if lonely:
            raise UserError(
                f"{folder / there[lonely[0]]} has no counterpart in {other} ({len(lonely)} of "
                f"{len(there)} images have none): files are matched by their path without "
                f"suffix, so {lonely[0]}.* is wanted there."
            )
    stems = sorted(left)
    return (
        ImageFiles(images, [left[stem] for stem in stems]),
        ImageFiles(references, [right[stem] for stem in stems]),
    )


def captions(files: ImageFiles) -> list[str]:
    """The text of every image, as :class:`FolderSource` reads it; "" where there is none."""
    source = FolderSource(files.root)
    return [source.caption(name) for name in files.names]


def check_shapes(images: ImageFiles, references: ImageFiles) -> None:
    """Raises UserError naming the first pair of matched files that differ in size, and a remedy."""
    for i, (a, b) in enumerate(zip(images, references, strict=True)):
        if a.shape != b.shape:
            raise UserError(
                f"{images.root / images.names[i]} is {a.shape[1]}x{a.shape[0]} pixels, but "
                f"{references.root / references.names[i]} {b.shape[1]}x{b.shape[0]}: nothing is "
                f"resized here, make them equal first. {_remedy(images.root, a, b)}"
            )


def _remedy(folder: Path, image: np.ndarray, reference: np.ndarray) -> str:
    """How two pictures that differ in size may be made equal."""
    (height, width), (wanted_height, wanted_width) = image.shape[:2], reference.shape[:2]
    scale = wanted_height // height
    if scale > 1 and (height * scale, width * scale) == (wanted_height, wanted_width):
        return (
            f"They are {scale} times smaller, as inputs of super-resolution are; to enlarge them: "
            f"python -m codi_jax.sample --checkpoint=CHECKPOINT --input={folder} --output=RESULTS"
        )
    rotated = (height, width) == (wanted_width, wanted_height)
    if rotated:
        return "One of them lies on its side: save it upright."
    return (
        f"To resize all of them with ImageMagick: magick mogrify -path RESULTS -resize "
        f"{wanted_width}x{wanted_height}! {folder}/*"
    )


def _by_stem(folder: Path) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in FolderSource(folder).names:
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in stems:
            raise UserError(
                f"{folder} holds {stems[stem]} and {name}: files are matched by their path "
                "without suffix; keep one of the two."
            )
        stems[stem] = name
    return stems

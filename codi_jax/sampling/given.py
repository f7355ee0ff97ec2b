"""What users give, one or several, and the same form for what they get."""

import os
from collections.abc import Sequence
from typing import cast

import numpy as np
from PIL import Image

from codi_jax.sampling.user_pictures import Picture, PictureSource, UserPicture
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError


def is_one(pictures: object, rank: int) -> bool:
    """Whether it is one picture, and not several; as an array one has up to ``rank`` axes."""
    if isinstance(pictures, np.ndarray):
        return pictures.ndim <= rank
    return isinstance(pictures, str | os.PathLike | Image.Image)


def as_given(source: PictureSource, result: UserPicture, task: Task) -> Picture:
    """The result in the form of what it was made from."""
    if not isinstance(source, np.ndarray):
        return result.as_pil()
    return result.channels() if task.takes_map else result.as_array(source)


def one_each(
    mask: PictureSource | Sequence[PictureSource] | None, count: int
) -> Sequence[PictureSource | None]:
    """The mask of each of ``count`` pictures.

    Raises:
        UserError: there are several, but not ``count``.
    """
    if mask is None or is_one(mask, 2):
        return [cast(PictureSource | None, mask)] * count
    masks = [*cast(Sequence[PictureSource], mask)]
    if len(masks) != count:
        raise UserError(f"{len(masks)} masks for {count} images: one each, or one.")
    return masks

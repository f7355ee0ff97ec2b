"""From one user's picture to its result: what is around the networks."""

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt16

from codi_jax.data.images import eight_bits
from codi_jax.sampling.colours import fix_colours
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.sizing import Sizing, resampled, resampled_mask, resampled_picture
from codi_jax.sampling.user_pictures import PictureSource, UserPicture, as_map
from codi_jax.tasks.base import Example, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What a user gave, as a task reads it.

    Attributes:
        task: the task.
        example: what its networks read.
        size: height and width of it.
        picture: the picture; None for maps.
        result_size: height and width of the result.
    """

    task: Task
    example: Example
    size: tuple[int, int]
    picture: UserPicture | None
    result_size: tuple[int, int]

    @classmethod
    def of(
        cls,
        task: Task,
        source: PictureSource | bytes,
        mask: np.ndarray | None,
        prompt: str | None,
        sizing: Sizing,
    ) -> "Subject":
        """Read it, and reduce it where its result would be too large.

        Raises:
            UserError: a picture that cannot be read, or that the task does not take.
        """
        picture: UserPicture | None = None
        if task.takes_map and not isinstance(source, bytes):
            array: np.ndarray = as_map(source)
        else:
            picture = read_picture(source)
            array = picture.colour
        given = array.shape[0], array.shape[1]
        size = sizing.input_size(given, task.scale)
        if size != given:
            array = resampled(array, size)
            picture = None if picture is None else resampled_picture(picture, size)
            if mask is not None and mask.shape == given:
                mask = resampled_mask(mask, size)
        shown = eight_bits(array) if picture is not None and picture.deep else array
        return cls(
            task=task,
            example=task.from_user(shown, mask=mask, prompt=prompt),
            size=size,
            picture=picture,
            result_size=sizing.result_size(given, task.scale),
        )

    def padded(self, size: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """The arrays that tiles are cut from: padded by their edges to height and width."""
        missing = [(0, new - old) for new, old in zip(size, self.size, strict=True)]
        return {
            name: np.pad(array, [*missing, *[(0, 0)] * (array.ndim - 2)], mode="edge")
            if (array := np.asarray(value)).ndim > 1
            else array
            for name, value in self.task.before_tiles(self.example).items()
        }

    def finished(self, made: UInt16[np.ndarray, "height width 3"], sizing: Sizing) -> UserPicture:
        """The result.

        Args:
            made: what the networks made; a picture of latents, which may be larger.
            sizing: how large the result is to be, and its colours.
        """
        scale, user = self.task.scale, self.picture
        colour: np.ndarray = made[: self.size[0] * scale, : self.size[1] * scale]
        if user is None:
            return self._sized(UserPicture(colour=eight_bits(colour)))
        colour = fix_colours(sizing.fix_of(self.task), colour, user.colour, scale)
        colour = colour if user.deep else eight_bits(colour)
        own = {"image": user.colour} if "image" in self.example else {}
        colour = self.task.finish(colour, {**self.example, **own})
        grey = user.grey and "grey" in self.task.keeps
        if grey:
            colour = np.repeat(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
        alpha = user.alpha if "alpha" in self.task.keeps else None
        if alpha is not None:
            alpha = resampled(alpha, (colour.shape[0], colour.shape[1]))
        icc = user.icc if "icc" in self.task.keeps else None
        return self._sized(
            dataclasses.replace(user, colour=colour, alpha=alpha, grey=grey, icc=icc)
        )

    def _sized(self, picture: UserPicture) -> UserPicture:
        return resampled_picture(picture, self.result_size)

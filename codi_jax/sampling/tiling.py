"""How large the tiles are: as the user says, else what the model was made for and memory holds."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Array, Float, Key, UInt16

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import Model
from codi_jax.parallel.compiling import device_memory
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.sampling.tile_programs import TooLargeError
from codi_jax.sampling.tiled_sampler import Call, Geometry, TiledSampler
from codi_jax.sampling.tiles import Axis, Grid
from codi_jax.typing import Params, UserError

#: Side of tiles in pixels, for models that do not say what they were trained at.
TILE = 512
#: Sides of what a model was trained at that a tile has at most: its attention was made for few.
TIMES_TRAINED = 6
#: The smallest side in pixels that "auto" comes down to where memory is short.
SMALLEST = 64
#: Tiles that an accelerator computes at once.
TILES_AT_ONCE = 4
#: Pixels by which the task's enlargement looks beyond a small picture's pixel.
_ENLARGING = 2
#: Bytes on a CPU beside the programs: Python, JAX and the parameters.
_BASE = 2**29
#: Bytes on a CPU for each pixel of a result: latents and their history, levels, what is encoded.
_PER_PIXEL = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiling:
    """How much is computed at once.

    Attributes:
        tile: side in pixels of the tiles that results are computed in, small ones padded to one;
            0 computes each whole, and "auto" takes 512, or what the model and memory are made for.
        max_memory: GiB that may be used; by default half of the machine's, or an accelerator's.
    """

    tile: str = "auto"
    max_memory: float | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are `UserError`."""
        if self.tile != "auto" and not (self.tile.isdecimal() and self.tile.isascii()):
            raise UserError(f"tile={self.tile!r}: give auto, 0, or a number of pixels.")
        if self.max_memory is not None and not self.max_memory > 0:
            raise UserError(f"max_memory={self.max_memory}: give GiB, above 0.")

    def geometries(self, model: Model, size: tuple[int, int]) -> Iterator[Geometry]:
        """How a picture may be cut, the best first; the others need less memory.

        Args:
            model: its networks.
            size: height and width of the result in pixels.
        """
        f = model.vae.downsampling
        latents = (-(-size[0] // f), -(-size[1] // f))
        align = math.lcm(model.network.unet.downsampling, model.scale // math.gcd(model.scale, f))
        if self.tile == "0":
            yield _geometry(model, latents, (_up(latents[0], align), _up(latents[1], align)), align)
            return
        if self.tile != "auto":
            yield _geometry(model, latents, (_up(int(self.tile) / f, align),) * 2, align)
            return
        if model.task is None:  # a picture from noise alone is best drawn as a whole
            yield _geometry(model, latents, (_up(latents[0], align), _up(latents[1], align)), align)
        side = model.network.unet.sample_size
        trained = max(side if isinstance(side, tuple | list) else (side or 0,)) * f
        # Smaller pictures are padded: one program serves all, and a second picture starts at once.
        tile = max(min(TILE, TIMES_TRAINED * trained or TILE), trained, SMALLEST)
        while tile >= SMALLEST:
            yield _geometry(model, latents, (_up(tile / f, align),) * 2, align)
            tile //= 2

    def limit(self, pixels: int) -> int:
        """Bytes that a program may need for a result of so many pixels.

        Raises:
            UserError: ``max_memory`` is less than what is needed beside the programs.
        """
        cpu = jax.default_backend() == "cpu"
        beside = _BASE + pixels * _PER_PIXEL if cpu else 0
        if self.max_memory is None:
            available = device_memory(jax.local_devices()[0])
            return available - (pixels * _PER_PIXEL if cpu else 0)
        limit = round(self.max_memory * 2**30) - beside
        if limit <= 0:
            raise UserError(
                f"max_memory={self.max_memory:g}: a result of {pixels / 1e6:.1f} megapixels needs "
                f"{beside / 2**30:.1f} GiB beside its tiles; give more, or --max_megapixels."
            )
        return limit


def _up(value: float, align: int) -> int:
    """The next multiple of ``align``, at least one."""
    return max(1, math.ceil(value / align)) * align


def _geometry(
    model: Model, latents: tuple[int, int], tile: tuple[int, int], align: int
) -> Geometry:
    def grid(reach: int | None) -> Grid:
        axes = []
        for length, side in zip(latents, tile, strict=True):
            margin, fade = side // 16, side // 8
            if reach is not None and reach <= side // 4:
                margin, fade = reach, 0  # exact
            axes.append(Axis.cover(length, side, margin, fade, align))
        return Grid(axes[0], axes[1], latents)

    reach = model.vae.reach
    if reach is not None:
        reach += math.ceil(_ENLARGING * model.scale / model.vae.downsampling)
    return Geometry(unet=grid(None), codec=grid(reach), align=align)


class TiledPictures:
    """Makes pictures of any size, of tiles that memory holds.

    Args:
        pictures: networks and task.
        params: of the model.
        tiling: how large the tiles are.
    """

    def __init__(self, pictures: PictureSampler, params: Params, tiling: Tiling):
        self.pictures, self.params, self.tiling = pictures, params, tiling

    @functools.cached_property
    def _one(self) -> TiledSampler:
        """For pictures of one tile: on one device."""
        return TiledSampler(self.pictures, self.params, Devices(1, devices=1))

    @functools.cached_property
    def _several(self) -> TiledSampler:
        """For pictures of several tiles: several at once, on all devices."""
        cpu = jax.default_backend() == "cpu"
        count = jax.local_device_count() * (1 if cpu else TILES_AT_ONCE)
        if count == 1:
            return self._one
        return TiledSampler(self.pictures, self.params, Devices(count))

    def make(
        self,
        size: tuple[int, int],
        arrays: Callable[[tuple[int, int]], Mapping[str, np.ndarray]],
        *,
        key: Key[Array, ""],
        steps: int,
        text: GuidedCondition,
        sampler: SamplerConfig,
        noise: Float[np.ndarray, "latent_height latent_width channels"] | None = None,
        told: Callable[[int, int], None] | None = None,
    ) -> UInt16[np.ndarray, "height width 3"]:
        """A picture, of the largest tiles that memory holds.

        Args:
            size: height and width of the result in pixels.
            arrays: gives what the task reads, padded to a height and width of its arrays.
            key: of all noise.
            steps: number of sampling steps.
            text: entries of the texts, and the weights of guidance.
            sampler: the solver.
            noise: the initial latents; by default they are drawn.
            told: see :class:`Call`.

        Returns:
            At least ``size``: whole latents, with 16 bits.

        Raises:
            UserError: no tiles fit.
        """
        model = self.pictures.model
        limit = self.tiling.limit(size[0] * size[1])
        call = Call(key=key, steps=steps, sampler=sampler, limit=limit, text=text)
        if told is not None:
            call = dataclasses.replace(call, told=told)
        needed = 0
        for geometry in self.tiling.geometries(model, size):
            height, width = (
                side * model.vae.downsampling // model.scale for side in geometry.unet.shape
            )
            if noise is not None:
                more = (geometry.unet.shape[axis] - noise.shape[axis] for axis in (0, 1))
                padded = np.pad(noise, [*((0, count) for count in more), (0, 0)])
                call = dataclasses.replace(call, noise=padded)
            by = self._one if geometry.unet.count == 1 else self._several
            try:
                return by.make(geometry, arrays((height, width)), call)
            except TooLargeError as error:
                needed = error.needed
        raise UserError(
            f"tile={self.tiling.tile}: a result of {size[1]}x{size[0]} pixels needs "
            f"{needed / 2**30:.1f} GiB at once, and {limit / 2**30:.1f} are free for it: give "
            "--tile=auto or a smaller number, more --max_memory, or --max_megapixels."
        )

"""Pictures of any size in bounded memory: every network reads tiles, every step is of the whole.

The latents of the whole picture are on the host. In every step the network's outputs for all tiles
are blended, and the step is taken with the blended output; so tiles cannot drift apart, and a
solver's noise and history are those of one picture. Group norms use the same statistics in every
tile (:mod:`codi_jax.models.norm`).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, UInt16

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler import StepInfo, advance, step_infos
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.sampling.position_noise import position_noise
from codi_jax.sampling.tile_pass import Pass, cut_arrays
from codi_jax.sampling.tile_programs import Program, TilePrograms
from codi_jax.sampling.tiles import Batch, Grid
from codi_jax.typing import Params, PyTree

#: As :data:`codi_jax.diffusion.sampler.History`, on the host.
HostHistory = tuple[tuple[np.ndarray, np.ndarray], ...]
#: Bytes of an adapter's features that are kept from step to step.
KEPT_FEATURES = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a picture is cut.

    Attributes:
        unet: tiles that the U-Net and its adapter read.
        codec: tiles that the autoencoder reads.
        align: tiles and patches start at multiples of it.
    """

    unet: Grid
    codec: Grid
    align: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """What is asked for: all but the picture.

    Attributes:
        key: of all noise.
        steps: number of sampling steps.
        sampler: the solver.
        limit: bytes that a program may need.
        text: entries of the texts, and the weights of guidance.
        noise: the initial latents; by default they are drawn.
        told: called after each batch of tiles, with how many are done and how many there are.
    """

    key: Key[Array, ""]
    steps: int
    sampler: SamplerConfig
    limit: int
    text: GuidedCondition = GuidedCondition()
    noise: Float[np.ndarray, "height width channels"] | None = None
    told: Callable[[int, int], None] = lambda done, of: None


class TiledSampler:
    """Makes one picture after the other, of tiles.

    Args:
        pictures: networks and task.
        params: of the model.
        devices: where the tiles are computed.
    """

    def __init__(self, pictures: PictureSampler, params: Params, devices: Devices):
        self.pictures, self.devices = pictures, devices
        self.params = devices.replicate(params)
        self.programs = TilePrograms(pictures)
        step = functools.partial(advance, pictures.model.prediction_type)
        self.advance = jax.jit(step, static_argnums=0)

    def make(
        self, geometry: Geometry, arrays: Mapping[str, np.ndarray], call: Call
    ) -> UInt16[np.ndarray, "height width 3"]:
        """A picture.

        Args:
            geometry: its tiles.
            arrays: what the task reads, of one picture, padded to the tiles; of a prior nothing.
            call: what is asked for.

        Returns:
            The picture of ``geometry.unet.size`` latents, with 16 bits.

        Raises:
            TooLargeError: the programs need more memory than they may.
        """
        return _Run(self, geometry, arrays, call).picture()


class _Side(NamedTuple):
    """One of the conditions of guidance: its arrays, its texts, and later its latents."""

    arrays: Mapping[str, np.ndarray]
    words: dict[str, Array]
    latents: np.ndarray | None = None


class _Run:
    """One picture in the making."""

    def __init__(
        self, by: TiledSampler, geometry: Geometry, arrays: Mapping[str, np.ndarray], call: Call
    ):
        self.by, self.geometry, self.call = by, geometry, call
        self.model = by.pictures.model
        self.factor = self.model.vae.downsampling
        self.encodes = self.model.network.adapter.reads == "latents"
        self.sides = [*self._sides(arrays)]
        infos = step_infos(self.model.schedule, call.sampler, call.steps)
        self.infos: StepInfo = jax.tree.map(np.asarray, infos)
        self._features: dict[tuple[int, int], PyTree] = {}
        self._kept = self._done = 0
        codings = 1 + len(self.sides) * self.encodes
        size = by.devices.batch_size
        self._of = codings * -(-geometry.codec.count // size)
        self._of += len(self.infos.t) * -(-geometry.unet.count // size)

    def picture(self) -> UInt16[np.ndarray, "height width 3"]:
        """The finished picture."""
        if self.encodes:
            self.sides = [side._replace(latents=self._encoded(side)) for side in self.sides]
        self.features = [self._features_of(side) for side in self.sides]
        return self._decoded(self._sampled())

    def _sides(self, arrays: Mapping[str, np.ndarray]) -> Iterator[_Side]:
        pictures, size = self.by.pictures, self.by.devices.batch_size
        text, task = pictures.with_scale_read(self.call.text, size), pictures.task
        shape = (size, *self.geometry.unet.shape)
        yield _Side(arrays, pictures.text_condition(text.cond, shape))
        if text.uncond is not None:
            bare = task.without_prompt(arrays)
            yield _Side(bare, pictures.text_condition(text.uncond, shape))
        if text.none is not None:
            bare = task.without_picture(task.without_prompt(arrays))
            yield _Side(bare, pictures.text_condition(text.none, shape))

    def _pass(
        self,
        program: Program,
        grid: Grid,
        arguments: Callable[[Batch], tuple[PyTree, ...]],
    ) -> Pass:
        return Pass(
            program,
            grid,
            self.by.devices,
            align=self.geometry.align,
            limit=self.call.limit,
            arguments=arguments,
            told=self._tell,
        )

    def _tell(self) -> None:
        self._done += 1
        self.call.told(self._done, self._of)

    def _cut(self, batch: Batch, arrays: Mapping[str, np.ndarray]) -> dict[str, Array]:
        factor = Fraction(self.factor, self.model.scale)
        return cut_arrays(arrays, batch, self.by.devices, factor)

    def _spread(self, batch: Batch, latents: np.ndarray) -> Array:
        return self.by.devices.spread(batch.cut(latents))

    def _encoded(self, side: _Side) -> Float[np.ndarray, "height width channels"]:
        """The latents of a condition."""
        params = self.by.params["vae"]
        return self._pass(
            self.by.programs.encode,
            self.geometry.codec,
            lambda batch: (params, self._cut(batch, side.arrays)),
        ).blended()

    def _features_of(self, side: _Side) -> Pass:
        def arguments(batch: Batch) -> tuple[PyTree, ...]:
            latents = None if side.latents is None else self._spread(batch, side.latents)
            arrays = {} if self.encodes else self._cut(batch, side.arrays)
            return self.by.params, arrays, latents, side.words

        return self._pass(self.by.programs.features, self.geometry.unet, arguments)

    def _conditions(self, batch: Batch) -> tuple[dict[str, PyTree], ...]:
        """What the U-Net reads of each side; the adapter's features are kept if there is room."""
        found = []
        for number, (side, features) in enumerate(zip(self.sides, self.features, strict=True)):
            key = (number, batch.key)
            own = self._features[key] if key in self._features else features(batch)
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(own))
            if key not in self._features and self._kept + size <= KEPT_FEATURES:
                self._features[key] = own
                self._kept += size
            found.append({**side.words, "features": own})
        return (*found,)

    def _sampled(self) -> Float[np.ndarray, "height width channels"]:
        """The latents of the result."""
        shape = (*self.geometry.unet.shape, self.model.vae.latent_channels)
        keys = jax.random.split(self.call.key, len(self.infos.t) + 1)
        z = position_noise(keys[0], shape) if self.call.noise is None else self.call.noise
        history: HostHistory = ((np.zeros_like(z),) * 2,) * (self.infos.x_weights.shape[-1] - 1)
        for number, key in enumerate(keys[1:]):
            info = jax.tree.map(lambda x, i=number: x[i], self.infos)
            noise = position_noise(key, shape) if self.call.sampler.stochastic else None
            output = self._output(z, int(info.t))
            z, history = self._stepped(info, z, output, history, noise)
        return z

    def _output(self, z: np.ndarray, t: int) -> Float[np.ndarray, "height width channels"]:
        """The network's output for the whole picture."""
        scales = (np.float32(self.call.text.scale), np.float32(self.call.text.image_scale))
        params = {name: value for name, value in self.by.params.items() if name != "vae"}

        def arguments(batch: Batch) -> tuple[PyTree, ...]:
            return params, self._spread(batch, z), np.int32(t), self._conditions(batch), scales

        return self._pass(self.by.programs.predict, self.geometry.unet, arguments).blended()

    def _stepped(
        self,
        info: StepInfo,
        z: np.ndarray,
        output: np.ndarray,
        history: HostHistory,
        noise: np.ndarray | None,
    ) -> tuple[np.ndarray, HostHistory]:
        """One step, in parts of one size: else a program would be compiled for each picture."""
        grid = self.geometry.unet
        part = math.prod((grid.rows.tile, grid.columns.tile, z.shape[-1]))
        flat = jax.tree.map(lambda x: x.reshape(-1), (z, output, history, noise))
        made = jax.tree.map(np.empty_like, (flat[0], flat[2]))
        for start in range(0, z.size, part):
            piece = jax.tree.map(lambda x, s=start: _padded(x[s : s + part], part), flat)
            stepped = self.by.advance(self.call.sampler, info, *piece)

            def put(into: np.ndarray, new: Array, s: int = start) -> None:
                into[s : s + part] = np.asarray(new)[: into.size - s]

            jax.tree.map(put, made, stepped)
        return jax.tree.map(lambda x: x.reshape(z.shape), made)

    def _decoded(self, z: np.ndarray) -> UInt16[np.ndarray, "height width 3"]:
        params, f = self.by.params["vae"], self.factor
        height, width = (side * f for side in self.geometry.codec.size)
        picture = np.empty((height, width, 3), np.uint16)
        decoded = self._pass(
            self.by.programs.decode,
            self.geometry.codec,
            lambda batch: (params, self._spread(batch, z)),
        )
        for top, rows in decoded.rows(f):
            kept = rows[: max(0, height - top), :width]
            levels = np.round((np.clip(kept, -1, 1) + 1) * np.float32(32767.5))
            picture[top : top + len(kept)] = levels.astype(np.uint16)
        return picture


def _padded(part: np.ndarray, size: int) -> np.ndarray:
    return part if part.size == size else np.pad(part, (0, size - part.size))

"""The compiled programs that work on tiles: each is compiled once for a shape of tiles."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from codi_jax.diffusion.guidance import GuidedCondition, guided_predict
from codi_jax.models.norm import Moments, statistics
from codi_jax.models.winograd import convolutions_for
from codi_jax.parallel.compiling import DoesNotFit, compiler_options, memory_errors
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.tasks.base import Batch as Arrays
from codi_jax.typing import Cond, Params, PyTree


class TooLargeError(Exception):
    """A program needs more memory than it may.

    Attributes:
        needed: bytes.
    """

    def __init__(self, needed: int):
        super().__init__(needed)
        self.needed = needed


class Shared(NamedTuple):
    """What the group norms of a program use, see :func:`codi_jax.models.norm.statistics`."""

    weights: Array | np.ndarray
    given: tuple[Moments, ...] | None
    use_given: np.bool_


class Program:
    """A function of tiles, compiled once for each shape of its arguments.

    Args:
        function: of arrays.
    """

    def __init__(self, function: Callable[..., PyTree]):
        @convolutions_for(jax.default_backend())
        def traced(shared: Shared, *args: PyTree) -> tuple[PyTree, tuple[Moments, ...]]:
            weights, use_given = jnp.asarray(shared.weights), jnp.asarray(shared.use_given)
            with statistics(weights, shared.given, use_given) as measured:
                result = function(*args)
            return result, (*measured,)

        self._jitted = jax.jit(traced)
        self._compiled: dict[Any, tuple[Callable[..., Any], tuple[Moments, ...], int]] = {}

    def measures(self, weights: Array | np.ndarray, args: tuple[PyTree, ...], limit: int) -> bool:
        """Whether there is a norm in it whose statistics depend on the tile."""
        return bool(self._compile(weights, args, limit)[1])

    def __call__(
        self,
        weights: Array | np.ndarray,
        args: tuple[PyTree, ...],
        limit: int,
        given: tuple[Moments, ...] | None = None,
    ) -> tuple[PyTree, tuple[Moments, ...]]:
        """The function's result, and the statistics that were used.

        Args:
            weights: of the latents in statistics that are measured.
            args: of the function.
            limit: bytes that the program may need.
            given: statistics to be used; by default they are measured.

        Raises:
            TooLargeError: it needs more.
        """
        compiled, none, _ = self._compile(weights, args, limit)
        shared = Shared(weights, none if given is None else given, np.bool_(given is not None))
        with _within(limit):
            return compiled(shared, *args)

    def _compile(
        self, weights: Array | np.ndarray, args: tuple[PyTree, ...], limit: int
    ) -> tuple[Callable[..., Any], tuple[Moments, ...], int]:
        leaves, structure = jax.tree.flatten((weights, args))
        key = (structure, *map(_kind, leaves))
        if key not in self._compiled:
            measured = jax.eval_shape(self._jitted, Shared(weights, None, np.bool_(False)), *args)[
                1
            ]
            none = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), measured)
            shared = Shared(weights, none, np.bool_(False))
            with _within(limit):
                options = compiler_options(jax.devices()[0])
                compiled = self._jitted.lower(shared, *args).compile(options)
            self._compiled[key] = compiled, none, _bytes_of(compiled)
        found = self._compiled[key]
        if found[2] > limit:
            raise TooLargeError(found[2])
        return found


@contextlib.contextmanager
def _within(limit: int) -> Iterator[None]:
    """Raises TooLargeError where the device's memory does not suffice."""
    try:
        with memory_errors():
            yield
    except DoesNotFit as error:
        raise TooLargeError(limit + 1) from error


def _kind(leaf: Any) -> tuple[Any, ...]:
    """What a program is compiled for: an argument's shape, dtype and place."""
    where = leaf.sharding if isinstance(leaf, jax.Array) else None
    return np.shape(leaf), str(leaf.dtype), where


def _bytes_of(compiled: Any) -> int:
    """What a program needs beside its arguments, most of which are the parameters."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    return int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)


class TilePrograms:
    """The programs of one architecture.

    Args:
        pictures: its networks and task.
    """

    def __init__(self, pictures: PictureSampler):
        self.pictures, self.network = pictures, pictures.model.network
        self.encode = Program(self._encode)
        self.features = Program(self._features)
        self.predict = Program(self._predict)
        self.decode = Program(self._decode)

    def _encode(self, vae_params: Params, arrays: Arrays) -> Array:
        p = self.pictures
        return p.task.condition(p.vae, vae_params, arrays)["latents"]

    def _features(
        self, params: Params, arrays: Arrays, latents: Array | None, words: Cond
    ) -> PyTree:
        """What the adapter computes of the condition alone."""
        p, reads = self.pictures, self.network.adapter.reads
        cond = dict(words)
        if reads == "latents":
            cond["latents"] = latents
        elif reads:
            cond[reads] = p.task.condition(p.vae, params["vae"], arrays)[reads]
        return self.network.condition(params, cond)

    def _predict(
        self,
        params: Params,
        z_t: Array,
        t: Array,
        sides: tuple[Cond, ...],
        scales: tuple[Array, Array],
    ) -> Array:
        """The guided output; the sides are cond, uncond and none, as many as there are."""
        cond, *others = sides
        uncond, none = [*others, None, None][:2]
        condition = GuidedCondition(cond, uncond, none, *scales)
        times = jnp.full(z_t.shape[:1], t)
        return guided_predict(self.network.predict, params, z_t, times, condition)

    def _decode(self, vae_params: Params, z: Array) -> Array:
        return self.pictures.vae.apply({"params": vae_params}, z, method="decode")

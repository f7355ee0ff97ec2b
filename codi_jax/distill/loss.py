"""What a loss is: what it needs of a run, what it is called with, what it returns."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, NoReturn, TypedDict

import jax
from jaxtyping import Float, Key, Real

from codi_jax.diffusion.guidance import cfg_predict
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.typing import Array, Cond, Params, PredictFn

#: ``(z_t, t, cond) -> output``: a network whose parameters are its own.
TeacherFn = Callable[[Array, Array, Cond], Array]
#: ``reconstruct(params, images, key) -> (reconstruction, mean, logvar)``; no ``logvar``
#: where the code has no posterior.
ReconstructFn = Callable[[Params, Array, Array], tuple[Array, Array, Array | None]]


class Batch(TypedDict, total=False):
    """What a loss reads of a batch.

    Attributes:
        images: pictures [B, H, W, 3] in [-1, 1].
        latents: clean latents [B, h, w, C]; absent where `Needs.latents` is False.
        cond: the condition of the latents; absent likewise.
    """

    images: Array
    latents: Array
    cond: Cond


class StepContext(NamedTuple):
    """Which training step this is, and its randomness.

    Attributes:
        key: the key of this step.
        step: number of steps done before this one, int32 scalar.
        part: index of the micro-batch under gradient accumulation.
    """

    key: Array
    step: Array
    part: Array | None = None

    def keys(self, *, shared_time: bool) -> tuple[Key[Array, ""], Key[Array, ""]]:
        """Keys for the times and for the noise.

        Args:
            shared_time: whether all parts of one global batch draw the same times. Their noise
                always differs.

        Returns:
            ``(key of the times, key of the noise)``.
        """
        key_t, key_eps = jax.random.split(self.key)
        if self.part is not None:
            key_eps = jax.random.fold_in(key_eps, self.part)
            key_t = key_t if shared_time else jax.random.fold_in(key_t, self.part)
        return key_t, key_eps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a loss needs beside the network that it trains.

    The run provides exactly this: a member of `Networks` that is not asked for here raises when
    it is called.

    Attributes:
        latents: whether the loss reads latents and their condition. If not, it reads pictures
            alone and calls ``reconstruct``.
        target: the average that serves as ``target_params``: "target", theta- of algorithm 1;
            "teacher", an average that follows ``target_decay``; or None.
        target_decay: decay of that average after a number of steps (int32 scalar), where the
            loss fixes it. None: it is the user's choice.
        teacher: the frozen teacher that is called: "prior" (the U-Net without its adapter),
            "start" (the whole model that the run started from), or None.
        decoder: whether ``encode`` and ``decode`` are called.
        perceptual: whether ``perceptual`` is called.
        null: whether ``null`` is called.
        scale: whether the network is given a guidance scale: "required" if it must be one that
            reads it, "offered" if it may ignore it, or None.
    """

    latents: bool = True
    target: Literal["target", "teacher"] | None = None
    target_decay: Callable[[Array], Array] | None = None
    teacher: Literal["prior", "start"] | None = None
    decoder: bool = False
    perceptual: bool = False
    null: bool = False
    scale: Literal["required", "offered"] | None = None


def _absent(name: str) -> Callable[..., NoReturn]:
    def call(*_: object) -> NoReturn:
        raise ValueError(f"the loss calls {name}: its `needs` must say so.")

    return call


class Networks(NamedTuple):
    """The callables that a loss may use; those that it does not need may be left out.

    Attributes:
        predict: the network that is trained, ``w(z_t, c, t)``.
        teacher: a frozen network of the same prediction type.
        null: ``cond -> cond`` with the same entries, which says nothing about the picture.
        encode: pictures [B, H, W, 3] in [-1, 1] -> latents, by the frozen autoencoder.
        decode: latents -> pictures.
        perceptual: ``(pictures, pictures) -> [B]``, LPIPS.
        reconstruct: the autoencoder that is trained.
    """

    predict: PredictFn = _absent("predict")
    teacher: TeacherFn = _absent("teacher")
    null: Callable[[Cond], Cond] = _absent("null")
    encode: Callable[[Array], Array] = _absent("encode")
    decode: Callable[[Array], Array] = _absent("decode")
    perceptual: Callable[[Array, Array], Array] = _absent("perceptual")
    reconstruct: ReconstructFn = _absent("reconstruct")

    def guided(
        self,
        params: Params,
        z_t: Float[Array, " batch *latent"],
        t: Real[Array, " batch"],
        cond: Cond,
        scale: Float[Array, " batch"] | None,
    ) -> Float[Array, " batch *latent"]:
        """The trained network's output under classifier-free guidance; None is no guidance."""
        if scale is None:
            return self.predict(params, z_t, t, cond)
        return cfg_predict(self.predict, params, z_t, t, cond, self.null(cond), scale)

    def guided_teacher(
        self,
        z_t: Float[Array, " batch *latent"],
        t: Real[Array, " batch"],
        cond: Cond,
        scale: Float[Array, " batch"] | None,
    ) -> Float[Array, " batch *latent"]:
        """The teacher's output under classifier-free guidance; None is no guidance."""
        as_student = self._replace(predict=lambda _, z, time, c: self.teacher(z, time, c))
        return as_student.guided({}, z_t, t, cond, scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(abc.ABC):
    """A training loss: what it needs, how its result is sampled, and the loss itself."""

    @property
    def needs(self) -> Needs:
        """What the run must provide."""
        return Needs()

    @property
    def sampler(self) -> SamplerConfig | None:
        """How the trained model is to be sampled; None for a model that is not sampled."""
        return None

    @abc.abstractmethod
    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """Losses per sample. Only ``params`` receives a gradient.

        Args:
            networks: the network that is trained, and what else `needs` asks for.
            params: theta.
            target_params: the average that `needs` names.
            batch: the data.
            context: gives times and noise.

        Returns:
            Float32 [B] each: "loss", and the terms that it consists of.
        """

"""What the losses share: what they need of a run, their draws, the conversion to (x, eps)."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, NoReturn, TypedDict

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Real

from codi_jax.diffusion.guidance import cfg_predict
from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule, add_noise
from codi_jax.diffusion.solvers import ddim_step
from codi_jax.typing import Array, Cond, Params, PredictFn, UserError

XEps = tuple[Float[Array, " batch *latent"], Float[Array, " batch *latent"]]
#: ``(z_t, t, cond) -> output``: a network whose parameters are its own.
TeacherFn = Callable[[Array, Array, Cond], Array]
#: ``reconstruct(params, images, key) -> (reconstruction, mean, logvar)``; no ``logvar`` where the
#: code has no posterior.
ReconstructFn = Callable[[Params, Array, Array], tuple[Array, Array, Array | None]]
#: ``(key, batch size) -> times [B]``, the first of them t.
TimesFn = Callable[[Array, int], tuple[Array, ...]]


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


class Noisy(NamedTuple):
    """A batch at the times of one step: what every loss on latents starts from.

    Attributes:
        x: clean latents, float32 [B, ...].
        eps: the noise.
        z_t: the noisy latents at the first of ``times``.
        times: [B] each.
        cond: the condition, with the guidance scale where there is one.
        scale: guidance scales [B], or None.
        key: for one more draw, of a loss without guidance scales.
    """

    x: Array
    eps: Array
    z_t: Array
    times: tuple[Array, ...]
    cond: Cond
    scale: Array | None
    key: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentLoss(Loss):
    """Base of the losses on latents.

    Attributes:
        schedule: noise schedule of the network.
        prediction_type: what the network predicts: "v_prediction", "epsilon" or "sample".

    Raises:
        UserError: a prediction type that is unknown or that the schedule cannot serve.
    """

    schedule: Schedule
    prediction_type: str

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        check_prediction_type(self.schedule, self.prediction_type)

    @property
    def sampler(self) -> SamplerConfig:
        """DDIM, if the loss does not say otherwise."""
        return SamplerConfig()

    def noisy(
        self,
        batch: Batch,
        context: StepContext,
        times: TimesFn,
        *,
        shared_time: bool = False,
        guidance_range: tuple[float, float] | None = None,
    ) -> Noisy:
        """Draw times, noise and guidance scales, and add the noise (eq. 1).

        Args:
            batch: "latents" and "cond" are read.
            context: gives the keys.
            times: draws t and the times that follow from it.
            shared_time: whether the parts of a global batch share their times.
            guidance_range: of the guidance scales; None draws none.
        """
        x = batch["latents"].astype(jnp.float32)
        key_t, key_eps = context.keys(shared_time=shared_time)
        drawn = times(key_t, len(x))
        eps = jax.random.normal(key_eps, x.shape, jnp.float32)
        z_t = add_noise(self.schedule, x, eps, drawn[0])
        key = jax.random.fold_in(key_eps, 1)
        cond, scale = batch["cond"], None
        if guidance_range is not None:
            scale = jax.random.uniform(key, (len(x),), jnp.float32, *guidance_range)
            cond = {**cond, "guidance_scale": scale}
        return Noisy(x, eps, z_t, drawn, cond, scale, key)

    def any_time(self, key: Key[Array, ""], size: int) -> tuple[Real[Array, " batch"]]:
        """A `TimesFn`: t uniform over [0, N - 1], one draw per sample."""
        return (self.schedule.sample_t(key, (size,), 0),)

    def x_eps(
        self, output: Float[Array, " batch *latent"], z: Array, t: Real[Array, " batch"]
    ) -> XEps:
        """The signal and noise predictions that a network's output at ``(z, t)`` stands for."""
        # The network may compute in bfloat16; the losses are float32.
        output = output.astype(jnp.float32)
        return to_x_eps(self.prediction_type, output, z, *self.schedule.alpha_sigma(t))

    def ddim(self, x_eps: XEps, s: Real[Array, " batch"]) -> Float[Array, " batch *latent"]:
        """``z_s`` by DDIM (eq. 8)."""
        return ddim_step(*x_eps, *self.schedule.alpha_sigma(s))


def check_range(guidance_range: tuple[float, float] | None) -> None:
    """Check a range of guidance scales.

    Raises:
        UserError: a range that is not ``0 <= lowest <= highest``.
    """
    if guidance_range is None:
        return
    if len(guidance_range) != 2 or not 0.0 <= guidance_range[0] <= guidance_range[1]:
        raise UserError(
            f"guidance_range={guidance_range} must be (lowest, highest) with 0 <= lowest <= "
            "highest; 1 is no guidance."
        )


def check_grid(name: str, steps: int, num_train_timesteps: int) -> None:
    """Check a number of grid steps.

    Args:
        name: of the option, for the message.
        steps: its value.
        num_train_timesteps: N of the schedule.

    Raises:
        UserError: steps that are less than two timesteps wide, or no step.
    """
    if not 1 <= steps <= num_train_timesteps // 2:
        raise UserError(f"{name}={steps} must be between 1 and {num_train_timesteps // 2}.")


def grid_time(
    num_train_timesteps: int, num_steps: Int[Array, ""] | int, i: Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """Time ``i`` of ``num_steps`` "trailing" sampling steps, ``round(N i / n) - 1``.

    They are the times of `codi_jax.diffusion.timesteps.inference_timesteps`, counted from the
    end.

    Args:
        num_train_timesteps: N.
        num_steps: n.
        i: in 0 ... n. 0 gives -1, clean data, and n gives N - 1.

    Returns:
        int32, shaped like ``i``.
    """
    times = jnp.round(num_train_timesteps * i / num_steps) - 1
    return times.astype(jnp.int32)


def grid_pair(
    key: Key[Array, ""], shape: tuple[int, ...], grid_steps: int, num_train_timesteps: int
) -> tuple[Int[Array, "*shape"], Int[Array, "*shape"]]:
    """A random time of a grid and the one before it, the boundary 0 before the first.

    Args:
        key: of the draw.
        shape: of each result.
        grid_steps: n, the number of times.
        num_train_timesteps: N of the schedule.

    Returns:
        ``(t, s)``, int32; t is uniform over the grid.
    """
    i = jax.random.randint(key, shape, 1, grid_steps + 1, jnp.int32)
    t, s = (grid_time(num_train_timesteps, grid_steps, j) for j in (i, i - 1))
    return t, jnp.maximum(s, 0)

"""What the losses on latents share: their draws, their networks, the conversion to (x, eps)."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from codi_jax.diffusion.guidance import cfg_predict
from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.diffusion.solvers import ddim_step
from codi_jax.typing import Array, Cond, Params, PredictFn, UserError

XEps = tuple[Array, Array]


class StepContext(NamedTuple):
    """Which step of the training it is, and its randomness.

    Attributes:
        key: of this step.
        step: number of steps done before this one, int32 scalar.
        part: index of the micro-batch under gradient accumulation.
    """

    key: Array
    step: Array
    part: Array | None = None

    def keys(self, *, shared_time: bool) -> tuple[Array, Array]:
        """``(of the times, of the noise)``. The parts of one global batch differ in the noise,
        and in the times unless ``shared_time``."""
        key_t, key_eps = jax.random.split(self.key)
        if self.part is not None:
            key_eps = jax.random.fold_in(key_eps, self.part)
            key_t = key_t if shared_time else jax.random.fold_in(key_t, self.part)
        return key_t, key_eps


class Networks(NamedTuple):
    """The callables that a loss may use; all but ``predict`` may be absent where it does not.

    Attributes:
        predict: the network that is trained, ``w(z_t, c, t)``.
        teacher: ``(z_t, t, cond) -> output`` of a frozen network of the same prediction type.
        null: ``cond -> cond`` of the same entries that says nothing about the picture.
        encode: pictures [B, H, W, 3] in [-1, 1] -> latents, by the frozen autoencoder.
        decode: the other way.
        perceptual: ``(pictures, pictures) -> [B]``, LPIPS.
    """

    predict: PredictFn
    teacher: Callable[[Array, Array, Cond], Array] | None = None
    null: Callable[[Cond], Cond] | None = None
    encode: Callable[[Array], Array] | None = None
    decode: Callable[[Array], Array] | None = None
    perceptual: Callable[[Array, Array], Array] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentLoss(abc.ABC):
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
        check_prediction_type(self.schedule, self.prediction_type)

    @abc.abstractmethod
    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Mapping[str, Any],
        context: StepContext,
    ) -> dict[str, Array]:
        """Losses per sample; only ``params`` receives a gradient.

        Args:
            networks: the network that is trained, and whatever else the settings ask for.
            params: theta.
            target_params: the average that `make_step` is told: theta-, or the teacher of
                progressive distillation.
            batch: "latents", clean latents [B, h, w, C]; "cond", the condition; and "images"
                [B, H, W, 3], the pictures in [-1, 1], which distances of pictures read.
            context: gives times and noise.

        Returns:
            Float32 [B] each: "loss", and what it consists of.
        """

    @property
    def teacher(self) -> str | None:
        """Which frozen teacher is called: "prior", "start" (the model that the run started
        from), or None."""
        return None

    @property
    def perceptual(self) -> bool:
        """Whether ``Networks.perceptual`` is called."""
        return False

    @property
    def sampler(self) -> SamplerConfig:
        """How what was trained is to be sampled."""
        return SamplerConfig()

    def x_eps(self, output: Array, z: Array, t: Array) -> XEps:
        """The signal and noise predictions that a network's output at ``(z, t)`` stands for."""
        # The network may compute in bfloat16; the losses are float32.
        output = output.astype(jnp.float32)
        return to_x_eps(self.prediction_type, output, z, *self.schedule.alpha_sigma(t))

    def ddim(self, x_eps: XEps, s: Array) -> Array:
        """``z_s`` by DDIM (eq. 8)."""
        return ddim_step(*x_eps, *self.schedule.alpha_sigma(s))


def predict_guided(
    networks: Networks, params: Params, z_t: Array, t: Array, cond: Cond, scale: Array | None
) -> Array:
    """The output under classifier-free guidance by ``scale`` [B]; None is no guidance."""
    if scale is None:
        return networks.predict(params, z_t, t, cond)
    assert networks.null is not None
    return cfg_predict(networks.predict, params, z_t, t, cond, networks.null(cond), scale)


def teacher_networks(networks: Networks) -> Networks:
    """The teacher in place of the network; its parameters are its own."""
    teacher = networks.teacher
    assert teacher is not None
    return networks._replace(predict=lambda _, z_t, t, cond: teacher(z_t, t, cond))


def check_range(guidance_range: tuple[float, float] | None) -> None:
    """Raises a UserError unless the range is absent or ``0 <= lowest <= highest``."""
    if guidance_range is None:
        return
    if len(guidance_range) != 2 or not 0.0 <= guidance_range[0] <= guidance_range[1]:
        raise UserError(
            f"guidance_range={guidance_range} must be (lowest, highest) with 0 <= lowest <= "
            "highest; 1 is no guidance."
        )


def draw_scale(guidance_range: tuple[float, float] | None, key: Array, batch: int) -> Array | None:
    """Guidance scales [B], uniform in the range; None without one."""
    if guidance_range is None:
        return None
    low, high = guidance_range
    return jax.random.uniform(jax.random.fold_in(key, 1), (batch,), jnp.float32, low, high)


def with_scale(cond: Cond, scale: Array | None) -> Cond:
    """``cond`` that tells the network its guidance scale, for those that read it."""
    return cond if scale is None else {**cond, "guidance_scale": scale}


def grid_time(num_train_timesteps: int, num_steps: Array | int, i: Array) -> Array:
    """Time ``i`` of ``num_steps`` "trailing" sampling steps, ``round(N i / n) - 1``, int32.

    ``i`` in 0 ... n; 0 gives -1, clean data, and n gives N - 1: what
    `codi_jax.diffusion.timesteps.inference_timesteps` returns from the end.
    """
    times = jnp.round(num_train_timesteps * i / num_steps) - 1
    return times.astype(jnp.int32)

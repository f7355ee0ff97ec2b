"""What the losses on latents share: their draws, grids of times, the conversion to (x, eps)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key, Real

from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule, add_noise
from codi_jax.diffusion.solvers import ddim_step
from codi_jax.distill.loss import Batch, Loss, StepContext
from codi_jax.typing import Array, Cond, UserError

XEps = tuple[Float[Array, " batch *latent"], Float[Array, " batch *latent"]]
#: ``(key, batch size) -> times [B]``, the first of them t.
TimesFn = Callable[[Array, int], tuple[Array, ...]]


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

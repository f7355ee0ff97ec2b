"""Consistency distillation (Song et al. 2023, algorithm 2; the paper's CM-II).

    L = d(f_theta(z_t, t, c), f_theta-(z_s, s, c)),    z_s = DDIM(teacher, z_t, t -> s)

with ``f = c_skip z + c_out x_hat`` (`codi_jax.diffusion.consistency`). The teacher is the frozen
conditional model that training started from. Neither it nor theta- receives a gradient.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.consistency import consistency_function
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import add_noise
from codi_jax.distill.base import (
    LatentLoss,
    Networks,
    StepContext,
    check_range,
    draw_scale,
    grid_time,
    predict_guided,
    teacher_networks,
    with_scale,
)
from codi_jax.distill.distances import distance
from codi_jax.typing import Array, Params, UserError, check_choice

DISTANCES = ("l2", "huber", "lpips")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyLoss(LatentLoss):
    """Consistency distillation on a grid of times, one draw per sample.

    Attributes:
        grid_steps: n. The times are those of n "trailing" sampling steps; ``s`` is the one before
            ``t``, and the boundary ``t = 0`` before the first. At most half of the schedule's.
        distance: "l2" or "huber" between the latents, or "lpips" between the decoded pictures.
        timestep_scaling: of the boundary scalings, see `boundary_scalings`.
        guidance_range: (lowest, highest) scale of classifier-free guidance that the teacher is
            asked with, uniform (Luo et al. 2023); a network with ``time_cond_proj_dim`` reads it.

    Raises:
        UserError: as `LatentLoss`; an unknown distance; a number out of range.
    """

    grid_steps: int = 50
    distance: str = "l2"
    timestep_scaling: float = 10.0
    guidance_range: tuple[float, float] | None = None

    @property
    def sampler(self) -> SamplerConfig:
        """The stochastic sampler of consistency models, at the times of the grid."""
        return SamplerConfig(
            solver="consistency",
            original_inference_steps=self.grid_steps,
            timestep_scaling=self.timestep_scaling,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("distance", self.distance, DISTANCES)
        check_grid("grid_steps", self.grid_steps, self.schedule.num_train_timesteps)
        check_range(self.guidance_range)

    @property
    def teacher(self) -> str | None:
        return "start"

    @property
    def perceptual(self) -> bool:
        return self.distance == "lpips"

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Mapping[str, Any],
        context: StepContext,
    ) -> dict[str, Array]:
        """See `LatentLoss`; ``networks`` brings the teacher.

        Returns:
            "loss", float32 [B].
        """
        x = batch["latents"].astype(jnp.float32)
        key_t, key_eps = context.keys(shared_time=False)
        t, s = grid_pair(key_t, x.shape[:1], self.grid_steps, self.schedule.num_train_timesteps)
        scale = draw_scale(self.guidance_range, key_eps, len(x))
        cond = with_scale(batch["cond"], scale)
        z_t = add_noise(self.schedule, x, jax.random.normal(key_eps, x.shape, jnp.float32), t)
        output = predict_guided(teacher_networks(networks), {}, z_t, t, cond, scale)
        z_s = jax.lax.stop_gradient(self.ddim(self.x_eps(output, z_t, t), s))
        online = self._f(networks, params, z_t, t, cond)
        target = jax.lax.stop_gradient(self._f(networks, target_params, z_s, s, cond))
        if self.distance != "lpips":
            return {"loss": distance(self.distance, online, target)}
        assert networks.decode is not None and networks.perceptual is not None
        return {"loss": networks.perceptual(networks.decode(online), networks.decode(target))}

    def _f(
        self, networks: Networks, params: Params, z: Array, t: Array, cond: Mapping[str, Any]
    ) -> Array:
        x_hat, _ = self.x_eps(networks.predict(params, z, t, cond), z, t)
        return consistency_function(x_hat, z, t, self.timestep_scaling)


def grid_pair(
    key: Array, shape: tuple[int, ...], grid_steps: int, num_train_timesteps: int
) -> tuple[Array, Array]:
    """``(t, s)`` int32: a time of the grid, uniform, and the one before; 0 before the first."""
    i = jax.random.randint(key, shape, 1, grid_steps + 1, jnp.int32)
    t, s = (grid_time(num_train_timesteps, grid_steps, j) for j in (i, i - 1))
    return t, jnp.maximum(s, 0)


def check_grid(name: str, steps: int, num_train_timesteps: int) -> None:
    """Raises a UserError unless the grid is at least two timesteps wide."""
    if not 1 <= steps <= num_train_timesteps // 2:
        raise UserError(f"{name}={steps} must be between 1 and {num_train_timesteps // 2}.")

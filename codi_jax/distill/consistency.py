"""Consistency distillation (Song et al. 2023, algorithm 2; the paper's CM-II).

    L = d(f_theta(z_t, t, c), f_theta-(z_s, s, c)),    z_s = DDIM(teacher, z_t, t -> s)

with ``f = c_skip z + c_out x_hat`` (`codi_jax.diffusion.consistency`). The teacher is the frozen
conditional model that training started from. Neither the teacher nor theta- receives a gradient.
"""

import dataclasses

import jax
from jaxtyping import Float, Int, Key, Real

from codi_jax.diffusion.consistency import consistency_function
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.distill.base import LatentLoss, check_grid, check_range, grid_pair
from codi_jax.distill.distances import distance
from codi_jax.distill.loss import Batch, Needs, Networks, StepContext
from codi_jax.typing import Array, Cond, Params, check_choice

DISTANCES = ("l2", "huber", "lpips")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyLoss(LatentLoss):
    """Consistency distillation on a grid of times; each sample has its own ``t``.

    Attributes:
        grid_steps: n, at most half of the schedule's timesteps. The times are those of n
            "trailing" sampling steps; ``s`` is the time before ``t``, and the boundary 0 before
            the first.
        distance: "l2" or "huber" between the latents, or "lpips" between the decoded pictures.
        timestep_scaling: see `codi_jax.diffusion.consistency.boundary_scalings`.
        guidance_range: (lowest, highest) scale of the classifier-free guidance under which the
            teacher is asked, drawn uniformly (Luo et al. 2023). A network with
            ``time_cond_proj_dim`` reads it. None is no guidance.

    Raises:
        UserError: see `LatentLoss`; an unknown distance; or a number out of range.
    """

    grid_steps: int = 50
    distance: str = "l2"
    timestep_scaling: float = 10.0
    guidance_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        super().__post_init__()
        check_choice("distance", self.distance, DISTANCES)
        check_grid("grid_steps", self.grid_steps, self.schedule.num_train_timesteps)
        check_range(self.guidance_range)

    @property
    def needs(self) -> Needs:
        """theta-, the teacher, and what the distance and the guidance call."""
        pictures, guided = self.distance == "lpips", self.guidance_range is not None
        return Needs(
            target="target",
            teacher="start",
            decoder=pictures,
            perceptual=pictures,
            null=guided,
            scale="offered" if guided else None,
        )

    @property
    def sampler(self) -> SamplerConfig:
        """The stochastic sampler of consistency models, at the times of the grid."""
        return SamplerConfig(
            solver="consistency",
            original_inference_steps=self.grid_steps,
            timestep_scaling=self.timestep_scaling,
        )

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """See `Loss`; ``target_params`` is theta-, the moving average.

        Returns:
            "loss", float32 [B].
        """
        noisy = self.noisy(batch, context, self._times, guidance_range=self.guidance_range)
        z_t, (t, s), cond = noisy.z_t, noisy.times, noisy.cond
        output = networks.guided_teacher(z_t, t, cond, noisy.scale)
        z_s = jax.lax.stop_gradient(self.ddim(self.x_eps(output, z_t, t), s))
        online = self._f(networks, params, z_t, t, cond)
        target = jax.lax.stop_gradient(self._f(networks, target_params, z_s, s, cond))
        if self.distance != "lpips":
            return {"loss": distance(self.distance, online, target)}
        return {"loss": networks.perceptual(networks.decode(online), networks.decode(target))}

    def _times(
        self, key: Key[Array, ""], size: int
    ) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
        return grid_pair(key, (size,), self.grid_steps, self.schedule.num_train_timesteps)

    def _f(
        self,
        networks: Networks,
        params: Params,
        z: Float[Array, " batch *latent"],
        t: Real[Array, " batch"],
        cond: Cond,
    ) -> Float[Array, " batch *latent"]:
        x_hat, _ = self.x_eps(networks.predict(params, z, t, cond), z, t)
        return consistency_function(x_hat, z, t, self.timestep_scaling)

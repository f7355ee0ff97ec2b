"""The CoDi loss (paper, algorithm 1 and eq. 11), on any ``predict`` callable.

    L = d_eps(eps_hat_theta(z_t, t, c), eps_hat_theta-(z_s, s, c)) + lambda d_x(x, x_hat_theta)

with ``s = t - dt`` and ``z_s`` predicted from ``z_t`` (`predictors`). Neither ``z_s`` nor the
target's prediction carries a gradient. The target network is called with ``s``, as in eq. 11,
because ``z_s`` has the noise level of ``s`` (algorithm 1 prints ``t`` there).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key, Real

from codi_jax.diffusion.consistency import consistency_function
from codi_jax.distill.base import LatentLoss, Noisy, XEps, check_grid, check_range, grid_pair
from codi_jax.distill.distances import DISTANCES, distance, min_snr_weight
from codi_jax.distill.loss import Batch, Needs, Networks, StepContext
from codi_jax.distill.predictors import PREDICTORS, predict_z_s
from codi_jax.typing import Array, Params, UserError, check_choice

TIMES_PER = ("batch", "sample")
CONSISTENCY_SPACES = ("eps", "x")
DATA_SPACES = ("latent", "reencoded", "pixel", "lpips")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoDiLoss(LatentLoss):
    """Conditional diffusion distillation; the defaults are the paper's.

    Attributes:
        schedule: noise schedule of the prior.
        prediction_type: what the prior predicts; the distilled model keeps it.
        predictor: how ``z_s`` is found, see `codi_jax.distill.predictors`.
        data_weight: lambda, the weight of the conditional guidance ``d_x``.
        consistency_weight: weight of the consistency term.
        dt: ``t - s`` in timesteps of the schedule, in [1, N - 1].
        grid_steps: instead of ``dt``: times of a grid, see `ConsistencyLoss`.
        time_per: "batch" draws one ``t`` for the whole global batch, "sample" one per sample.
        consistency_space: compare the noise predictions ("eps") or the signal ("x").
        consistency_distance: ``d_eps``, see `codi_jax.distill.distances`.
        data_distance: ``d_x``, see there; not used with data space "lpips".
        data_space: where ``d_x`` compares: latents ("latent"), latents of the decoded prediction
            ``E(D(x_hat))`` ("reencoded"), pictures ("pixel"), or by LPIPS of them ("lpips").
        lpips_weight: LPIPS of the decoded prediction, times this, is added to ``d_x``.
        timestep_scaling: if set, ``x_hat`` is the consistency function of
            `codi_jax.diffusion.consistency` in both terms; for consistency space "x" only. None
            is the plain prediction.
        guidance_range: (lowest, highest) scale of classifier-free guidance in both networks,
            drawn uniformly; None is no guidance.
        min_snr_gamma: if set, both terms are weighted by their noise level, see
            `codi_jax.distill.distances.min_snr_weight`.

    Raises:
        UserError: an unknown name, a number out of range, or settings that exclude each other.
    """

    predictor: str = "prev"
    data_weight: float = 1.0
    consistency_weight: float = 1.0
    dt: int = 1
    grid_steps: int | None = None
    time_per: str = "batch"
    consistency_space: str = "eps"
    consistency_distance: str = "l2"
    data_distance: str = "l2"
    data_space: str = "latent"
    lpips_weight: float = 0.0
    timestep_scaling: float | None = None
    guidance_range: tuple[float, float] | None = None
    min_snr_gamma: float | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        super().__post_init__()
        check_choice("predictor", self.predictor, PREDICTORS)
        check_choice("time_per", self.time_per, TIMES_PER)
        check_choice("consistency_space", self.consistency_space, CONSISTENCY_SPACES)
        check_choice("consistency_distance", self.consistency_distance, DISTANCES)
        check_choice("data_distance", self.data_distance, DISTANCES)
        check_choice("data_space", self.data_space, DATA_SPACES)
        check_range(self.guidance_range)
        if not 0 <= self.lpips_weight < math.inf:
            raise UserError(f"lpips_weight={self.lpips_weight}: give a number of at least 0.")
        if self.lpips_weight and self.data_space == "lpips":
            raise UserError(
                f"lpips_weight={self.lpips_weight} is added to another d_x: "
                "give data_space='latent', 'pixel' or 'reencoded', or leave out lpips_weight."
            )
        total = self.schedule.num_train_timesteps
        if not 1 <= self.dt <= total - 1:
            raise UserError(f"dt={self.dt} must be between 1 and {total - 1} timesteps.")
        if self.grid_steps is not None:
            check_grid("grid_steps", self.grid_steps, total)
            if self.dt != 1:
                raise UserError(f"grid_steps={self.grid_steps} replaces dt={self.dt}: set one.")
        if self.timestep_scaling is not None and self.consistency_space != "x":
            raise UserError(
                f"timestep_scaling={self.timestep_scaling} scales x: set consistency_space='x'."
            )

    @property
    def needs(self) -> Needs:
        """theta-, and what the predictor, the data term and the guidance call."""
        guided = self.guidance_range is not None
        perceptual = self.data_space == "lpips" or self.lpips_weight > 0
        return Needs(
            target="target",
            teacher="prior" if self.predictor == "ddim" else None,
            decoder=self.data_space != "latent" or perceptual,
            perceptual=perceptual,
            null=guided,
            scale="offered" if guided else None,
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

        Under gradient accumulation the parts of a global batch share ``t`` if it is one value
        for the whole batch.

        Returns:
            Float32 [B] each: "consistency" and "data", unweighted, and "loss", their weighted
            sum.
        """
        noisy = self.noisy(
            batch,
            context,
            self._times,
            shared_time=self.time_per == "batch",
            guidance_range=self.guidance_range,
        )
        z_t, (t, s), cond, scale = noisy.z_t, noisy.times, noisy.cond, noisy.scale
        online = self.x_eps(networks.guided(params, z_t, t, cond, scale), z_t, t)
        z_s = jax.lax.stop_gradient(self._z_s(networks, noisy, online))
        output = networks.guided(target_params, z_s, s, cond, scale)
        target = jax.lax.stop_gradient(self._scaled(self.x_eps(output, z_s, s), z_s, s))
        online = self._scaled(online, z_t, t)

        i = 0 if self.consistency_space == "x" else 1
        consistency = distance(self.consistency_distance, online[i], target[i])
        data = self._data(networks, batch, noisy.x, online[0])
        loss = self._weight(t, self.consistency_space) * self.consistency_weight * consistency
        loss += self._weight(t, "x") * self.data_weight * data
        return {"loss": loss, "consistency": consistency, "data": data}

    def _weight(self, t: Real[Array, " batch"], space: str) -> Float[Array, " batch"] | float:
        if self.min_snr_gamma is None:
            return 1.0
        return min_snr_weight(*self.schedule.alpha_sigma(t), self.min_snr_gamma, space)

    def _times(
        self, key: Key[Array, ""], size: int
    ) -> tuple[Real[Array, " batch"], Real[Array, " batch"]]:
        shape = (size,) if self.time_per == "sample" else ()
        if self.grid_steps is not None:
            t, s = grid_pair(key, shape, self.grid_steps, self.schedule.num_train_timesteps)
        else:
            t = self.schedule.sample_t(key, shape, self.dt)
            s = t - self.dt
        return jnp.broadcast_to(t, (size,)), jnp.broadcast_to(s, (size,))

    def _scaled(self, x_eps: XEps, z: Array, t: Real[Array, " batch"]) -> XEps:
        if self.timestep_scaling is None:
            return x_eps
        x_hat, eps_hat = x_eps
        return consistency_function(x_hat, z, t, self.timestep_scaling), eps_hat

    def _data(
        self,
        networks: Networks,
        batch: Batch,
        x: Float[Array, " batch *latent"],
        x_hat: Float[Array, " batch *latent"],
    ) -> Float[Array, " batch"]:
        if self.data_space == "latent" and not self.lpips_weight:
            return distance(self.data_distance, x, x_hat)
        picture = networks.decode(x_hat)
        if self.data_space == "lpips":
            return networks.perceptual(batch["images"], picture)
        if self.data_space == "pixel":
            data = distance(self.data_distance, batch["images"], picture)
        else:
            again = networks.encode(picture) if self.data_space == "reencoded" else x_hat
            data = distance(self.data_distance, x, again)
        if self.lpips_weight:
            data += self.lpips_weight * networks.perceptual(batch["images"], picture)
        return data

    def _z_s(
        self, networks: Networks, noisy: Noisy, online: XEps
    ) -> Float[Array, " batch *latent"]:
        z_t, (t, s) = noisy.z_t, noisy.times
        teacher_x_eps = None
        if self.predictor == "ddim":
            teacher_x_eps = self.x_eps(networks.teacher(z_t, t, noisy.cond), z_t, t)
        alpha_t, sigma_t = self.schedule.alpha_sigma(t)
        alpha_s, sigma_s = self.schedule.alpha_sigma(s)
        return predict_z_s(
            self.predictor,
            z_t=z_t,
            eps=noisy.eps,
            x_hat_t=online[0],
            eps_hat_t=online[1],
            alpha_t=alpha_t,
            sigma_t=sigma_t,
            alpha_s=alpha_s,
            sigma_s=sigma_s,
            teacher_x_eps=teacher_x_eps,
        )

"""The CoDi loss (paper, algorithm 1 and eq. 11), on any ``predict`` callable.

    L = d_eps(eps_hat_theta(z_t, t, c), eps_hat_theta-(z_s, s, c)) + lambda d_x(x, x_hat_theta)

with ``s = t - dt`` and ``z_s`` predicted from ``z_t`` (`predictors`). Neither ``z_s`` nor the
target's prediction carries a gradient. The target network is called with ``s``, as eq. 11 has
it: ``z_s`` has the noise level of ``s`` (algorithm 1 prints ``t`` there).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.schedules import Schedule, add_noise, check_choice
from codi_jax.distill.distances import DISTANCES, distance
from codi_jax.distill.predictors import PREDICTORS, predict_z_s
from codi_jax.typing import Array, Params, PredictFn, UserError

#: ``teacher(z_t, t) -> network output`` of the frozen prior, which knows no new condition.
TeacherFn = Callable[[Array, Array], Array]

TIMES_PER = ("batch", "sample")
CONSISTENCY_SPACES = ("eps", "x")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoDiLoss:
    """Conditional diffusion distillation; the defaults are the paper's.

    Attributes:
        schedule: noise schedule of the prior.
        prediction_type: what the prior predicts; the distilled model keeps it.
        predictor: how ``z_s`` is found, see `codi_jax.distill.predictors`.
        data_weight: lambda, the weight of the conditional guidance ``d_x``.
        consistency_weight: weight of the consistency term.
        dt: ``t - s`` in timesteps of the schedule, in [1, N - 1].
        time_per: "batch" draws one ``t`` for the whole (global) batch, "sample" one each.
        consistency_space: compare the noise predictions ("eps") or the signal ("x").
        consistency_distance: ``d_eps``, see `codi_jax.distill.distances`.
        data_distance: ``d_x`` between the latents.

    Raises:
        UserError: an unknown name, ``dt`` out of range, or a prediction type that the schedule
            cannot serve.
    """

    schedule: Schedule
    prediction_type: str
    predictor: str = "prev"
    data_weight: float = 1.0
    consistency_weight: float = 1.0
    dt: int = 1
    time_per: str = "batch"
    consistency_space: str = "eps"
    consistency_distance: str = "l2"
    data_distance: str = "l2"

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)
        check_choice("predictor", self.predictor, PREDICTORS)
        check_choice("time_per", self.time_per, TIMES_PER)
        check_choice("consistency_space", self.consistency_space, CONSISTENCY_SPACES)
        check_choice("consistency_distance", self.consistency_distance, DISTANCES)
        check_choice("data_distance", self.data_distance, DISTANCES)
        last = self.schedule.num_train_timesteps - 1
        if not 1 <= self.dt <= last:
            raise UserError(f"dt={self.dt} must be between 1 and {last} timesteps.")

    def __call__(
        self,
        predict: PredictFn,
        params: Params,
        target_params: Params,
        batch: Mapping[str, Any],
        key: Array,
        *,
        teacher: TeacherFn | None = None,
        part: Array | None = None,
    ) -> dict[str, Array]:
        """Losses per sample; only ``params`` receives a gradient.

        Args:
            predict: the adapted network ``w(z_t, c, t)``.
            params: theta.
            target_params: theta-, the moving average.
            batch: "latents", clean latents [B, h, w, C], and "cond", the condition.
            key: gives ``t`` and the noise.
            teacher: the frozen prior; called by predictor "ddim" only.
            part: index of the micro-batch under gradient accumulation: the parts of one global
                batch share ``t`` (where that is one for the batch) and differ in the noise.

        Returns:
            Float32 [B] each: "consistency" and "data", unweighted, and "loss", their weighted
            sum.

        Raises:
            UserError: predictor "ddim" without ``teacher``.
        """
        x, cond = batch["latents"].astype(jnp.float32), batch["cond"]
        key_t, key_eps = jax.random.split(key)
        if part is not None:
            key_eps = jax.random.fold_in(key_eps, part)
            key_t = key_t if self.time_per == "batch" else jax.random.fold_in(key_t, part)
        t = self._sample_t(key_t, x.shape[0])
        s = t - self.dt
        eps = jax.random.normal(key_eps, x.shape, jnp.float32)
        z_t = add_noise(self.schedule, x, eps, t)

        x_hat_t, eps_hat_t = self._to_x_eps(predict(params, z_t, t, cond), z_t, t)
        z_s = self._predict_z_s(z_t, eps, x_hat_t, eps_hat_t, t, teacher)
        x_hat_s, eps_hat_s = jax.lax.stop_gradient(
            self._to_x_eps(predict(target_params, z_s, s, cond), z_s, s)
        )

        online, target = (eps_hat_t, eps_hat_s)
        if self.consistency_space == "x":
            online, target = (x_hat_t, x_hat_s)
        consistency = distance(self.consistency_distance, online, target)
        data = distance(self.data_distance, x, x_hat_t)
        loss = self.consistency_weight * consistency + self.data_weight * data
        return {"loss": loss, "consistency": consistency, "data": data}

    def _sample_t(self, key: Array, batch_size: int) -> Array:
        if self.time_per == "sample":
            return self.schedule.sample_t(key, (batch_size,), self.dt)
        return jnp.broadcast_to(self.schedule.sample_t(key, (), self.dt), (batch_size,))

    def _to_x_eps(self, output: Array, z: Array, t: Array) -> tuple[Array, Array]:
        # The network may compute in bfloat16; the losses are float32.
        output = output.astype(jnp.float32)
        return to_x_eps(self.prediction_type, output, z, *self.schedule.alpha_sigma(t))

    def _predict_z_s(
        self,
        z_t: Array,
        eps: Array,
        x_hat_t: Array,
        eps_hat_t: Array,
        t: Array,
        teacher: TeacherFn | None,
    ) -> Array:
        teacher_x_eps = None
        if self.predictor == "ddim" and teacher is not None:
            teacher_x_eps = self._to_x_eps(teacher(z_t, t), z_t, t)
        alpha_t, sigma_t = self.schedule.alpha_sigma(t)
        alpha_s, sigma_s = self.schedule.alpha_sigma(t - self.dt)
        z_s = predict_z_s(
            self.predictor,
            z_t=z_t,
            eps=eps,
            x_hat_t=x_hat_t,
            eps_hat_t=eps_hat_t,
            alpha_t=alpha_t,
            sigma_t=sigma_t,
            alpha_s=alpha_s,
            sigma_s=sigma_s,
            teacher_x_eps=teacher_x_eps,
        )
        return jax.lax.stop_gradient(z_s)

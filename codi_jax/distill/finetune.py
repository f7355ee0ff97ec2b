"""The ordinary diffusion loss: trains priors, and the fine-tuned baselines of the paper."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.parameterization import check_prediction_type, from_x_eps
from codi_jax.diffusion.schedules import Schedule, add_noise
from codi_jax.distill.codi import TeacherFn
from codi_jax.distill.distances import distance
from codi_jax.typing import Array, Params, PredictFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionLoss:
    """Mean squared error on what the network predicts (v, eps or x), at uniform times.

    Attributes:
        schedule: noise schedule; ``t`` is uniform over [0, N - 1], one draw per sample.
        prediction_type: the network's parameterisation, and thereby the regression target.

    Raises:
        UserError: a prediction type that is unknown or that the schedule cannot serve.
    """

    schedule: Schedule
    prediction_type: str

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)

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
        """Losses per sample, with `CoDiLoss`'s signature.

        Args:
            predict: the network.
            params: its parameters, which receive the gradient.
            target_params: not used.
            batch: "latents", clean latents [B, h, w, C], and "cond", the condition.
            key: gives ``t`` and the noise.
            teacher: not used.
            part: index of the micro-batch under gradient accumulation.

        Returns:
            "loss", float32 [B].
        """
        del target_params, teacher
        x = batch["latents"].astype(jnp.float32)
        key = key if part is None else jax.random.fold_in(key, part)
        key_t, key_eps = jax.random.split(key)
        t = self.schedule.sample_t(key_t, x.shape[:1], 0)
        eps = jax.random.normal(key_eps, x.shape, jnp.float32)
        output = predict(params, add_noise(self.schedule, x, eps, t), t, batch["cond"])
        target = from_x_eps(self.prediction_type, x, eps, *self.schedule.alpha_sigma(t))
        return {"loss": distance("l2", output.astype(jnp.float32), target)}

"""The ordinary diffusion loss: trains priors, and the fine-tuned baselines of the paper."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from codi_jax.diffusion.parameterization import from_x_eps
from codi_jax.diffusion.schedules import add_noise, expand
from codi_jax.distill.base import LatentLoss, Networks, StepContext
from codi_jax.distill.distances import distance
from codi_jax.typing import Array, Cond, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionLoss(LatentLoss):
    """Mean squared error on what the network predicts (v, eps or x), at uniform times.

    ``t`` is uniform over [0, N - 1], one draw per sample.

    Attributes:
        condition_dropout: share of the samples that see no condition, in [0, 1): what
            classifier-free guidance needs (Ho & Salimans 2022).

    Raises:
        UserError: as `LatentLoss`, or a share out of range.
    """

    condition_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.condition_dropout < 1.0:
            raise UserError(f"condition_dropout={self.condition_dropout} must be in [0, 1).")

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Mapping[str, Any],
        context: StepContext,
    ) -> dict[str, Array]:
        """See `LatentLoss`; ``target_params`` is not used.

        Returns:
            "loss", float32 [B].
        """
        del target_params
        x, cond = batch["latents"].astype(jnp.float32), batch["cond"]
        key_t, key_eps = context.keys(shared_time=False)
        t = self.schedule.sample_t(key_t, x.shape[:1], 0)
        eps = jax.random.normal(key_eps, x.shape, jnp.float32)
        if self.condition_dropout:
            cond = self._drop(networks, cond, jax.random.fold_in(key_eps, 1), len(x))
        output = networks.predict(params, add_noise(self.schedule, x, eps, t), t, cond)
        target = from_x_eps(self.prediction_type, x, eps, *self.schedule.alpha_sigma(t))
        return {"loss": distance("l2", output.astype(jnp.float32), target)}

    def _drop(self, networks: Networks, cond: Cond, key: Array, size: int) -> Cond:
        assert networks.null is not None
        drop = jax.random.bernoulli(key, self.condition_dropout, (size,))
        null = dict(networks.null(cond))
        return jax.tree.map(lambda n, c: jnp.where(expand(drop, c), n, c), null, dict(cond))

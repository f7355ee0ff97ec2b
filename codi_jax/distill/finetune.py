"""The ordinary diffusion loss: trains priors, and the fine-tuned baselines of the paper."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from codi_jax.diffusion.parameterization import from_x_eps
from codi_jax.diffusion.schedules import expand
from codi_jax.distill.base import LatentLoss, Noisy
from codi_jax.distill.distances import distance
from codi_jax.distill.loss import Batch, Needs, Networks, StepContext
from codi_jax.typing import Array, Cond, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionLoss(LatentLoss):
    """Mean squared error of what the network predicts (v, eps or x), at uniform times.

    Each sample has its own ``t``, uniform over [0, N - 1].

    Attributes:
        condition_dropout: share of the samples that see no condition, in [0, 1): what
            classifier-free guidance needs (Ho & Salimans 2022).

    Raises:
        UserError: see `LatentLoss`; or a share out of range.
    """

    condition_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        super().__post_init__()
        if not 0.0 <= self.condition_dropout < 1.0:
            raise UserError(f"condition_dropout={self.condition_dropout} must be in [0, 1).")

    @property
    def needs(self) -> Needs:
        """The null condition, where conditions are dropped."""
        return Needs(null=self.condition_dropout > 0)

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """See `Loss`.

        Returns:
            "loss", float32 [B].
        """
        del target_params
        noisy = self.noisy(batch, context, self.any_time)
        (t,) = noisy.times
        output = networks.predict(params, noisy.z_t, t, self._dropped(networks, noisy))
        levels = self.schedule.alpha_sigma(t)
        target = from_x_eps(self.prediction_type, noisy.x, noisy.eps, *levels)
        return {"loss": distance("l2", output.astype(jnp.float32), target)}

    def _dropped(self, networks: Networks, noisy: Noisy) -> Cond:
        if not self.condition_dropout:
            return noisy.cond
        drop = jax.random.bernoulli(noisy.key, self.condition_dropout, (len(noisy.x),))
        null, cond = dict(networks.null(noisy.cond)), dict(noisy.cond)
        return jax.tree.map(lambda n, c: jnp.where(expand(drop, c), n, c), null, cond)

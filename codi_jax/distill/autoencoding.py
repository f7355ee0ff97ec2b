"""The autoencoder's loss (Kingma & Welling 2013; Rombach et al. 2022, without the critic)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from codi_jax.distill.distances import distance
from codi_jax.distill.loss import Batch, Loss, Needs, Networks, StepContext
from codi_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderLoss(Loss):
    """L1 on pixels, plus L1 on their differences, plus a small KL to the unit normal.

    Attributes:
        kl_weight: weight of the mean KL per latent element (1e-6 in latent diffusion).
        edge_weight: weight of the L1 between horizontal and vertical finite differences. A loss
            on pixels alone is content with smooth pictures, and blur is what super-resolution
            must remove.
    """

    kl_weight: float = 1e-6
    edge_weight: float = 1.0

    @property
    def needs(self) -> Needs:
        """Pictures and the autoencoder that is trained."""
        return Needs(latents=False)

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """Losses of the reconstructions of ``batch["images"]``, see `Loss`.

        Returns:
            Float32 [B] each: "loss", "pixel", "edge", "kl".
        """
        del target_params
        x = batch["images"]
        x_hat, mean, logvar = networks.reconstruct(params, x, context.key)
        pixel = distance("l1", x, x_hat)
        error = x_hat - x
        edge = sum(jnp.abs(jnp.diff(error, axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2))
        kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1.0 - logvar).mean(axis=(1, 2, 3))
        loss = pixel + self.edge_weight * edge + self.kl_weight * kl
        return {"loss": loss, "pixel": pixel, "edge": jnp.asarray(edge), "kl": kl}


def latent_moments(mean: Float[Array, "batch height width channels"]) -> tuple[float, float]:
    """Shift and scale that make latents zero-mean and unit-sized.

    Args:
        mean: latents [N, h, w, C].

    Returns:
        ``(mean, 1 / standard deviation)`` over all values.
    """
    values = jax.device_get(mean)
    return float(values.mean()), float(1.0 / values.std())

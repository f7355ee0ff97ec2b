"""The autoencoder's loss (Kingma & Welling 2013; Rombach et al. 2022, without the critic)."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Float

from codi_jax.distill.distances import distance
from codi_jax.distill.loss import Batch, Loss, Needs, Networks, StepContext
from codi_jax.typing import Array, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderLoss(Loss):
    """A distance of pixels, plus L1 on their differences, plus a small KL to the unit normal.

    Attributes:
        pixel: the distance, see :func:`codi_jax.distill.distances.distance`.
        kl_weight: weight of the mean KL per latent element (1e-6 in latent diffusion); without a
            posterior there is none.
        edge_weight: weight of the L1 between horizontal and vertical finite differences. A loss
            on pixels alone is content with smooth pictures, and blur is what super-resolution
            must remove.
    """

    pixel: str = "l1"
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
            Float32 [B] each: "loss", "pixel", "edge" and, with a posterior, "kl".
        """
        del target_params
        x = batch["images"]
        x_hat, mean, logvar = networks.reconstruct(params, x, context.key)
        pixel = distance(self.pixel, x, x_hat)
        error = x_hat - x
        edge = sum(jnp.abs(jnp.diff(error, axis=axis)).mean(axis=(1, 2, 3)) for axis in (1, 2))
        losses = {"pixel": pixel, "edge": jnp.asarray(edge)}
        loss = pixel + self.edge_weight * losses["edge"]
        if logvar is None:
            return {"loss": loss, **losses}
        kl = 0.5 * (mean**2 + jnp.exp(logvar) - 1.0 - logvar).mean(axis=(1, 2, 3))
        return {"loss": loss + self.kl_weight * kl, **losses, "kl": kl}

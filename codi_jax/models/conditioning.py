"""Pictures to what the diffusion model sees, on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from codi_jax.models.autoencoders import Autoencoder
from codi_jax.typing import Params


def to_signed(images: UInt8[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Levels 0 to 255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def signed_to_uint8(images: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """From [-1, 1], clipped, to the nearest of the levels 0 to 255."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def size_ids(batch: int, height: int, width: int) -> Float[Array, "batch 6"]:
    """The sizes that Stable Diffusion XL's U-Net reads (Podell et al. 2023, section 2.2).

    Args:
        batch: number of pictures.
        height: of the result in pixels, for a picture that is neither reduced nor cropped.
        width: likewise.

    Returns:
        float32 [batch, 6]: original size, upper left corner of the crop, target size.
    """
    ids = jnp.asarray([[height, width, 0, 0, height, width]], jnp.float32)
    return jnp.tile(ids, (batch, 1))


def sr_condition(
    vae: Autoencoder, vae_params: Params, lr: UInt8[Array, "batch height width 3"], scale: int
) -> dict[str, Float[Array, "batch _ _ _"]]:
    """The condition of super-resolution (method section 2).

    Args:
        vae: the autoencoder.
        vae_params: its parameters.
        lr: the small images.
        scale: ratio of the sizes.

    Returns:
        "image" [B, H, W, 3] in [-1, 1], bicubically enlarged, and its "latents" (the mode).
    """
    b, h, w, c = lr.shape
    image = jax.image.resize(to_signed(lr), (b, h * scale, w * scale, c), method="cubic")
    image = jnp.clip(image, -1.0, 1.0)
    return {"image": image, "latents": vae.apply({"params": vae_params}, image, method="encode")}


def map_condition(
    vae: Autoencoder, vae_params: Params, values: Float[Array, "batch height width"]
) -> dict[str, Float[Array, "batch _ _ _"]]:
    """The condition of a map of one number per pixel, shown as a grey picture.

    Args:
        vae: the autoencoder.
        vae_params: its parameters.
        values: in [-1, 1].

    Returns:
        "image" [B, H, W, 3] and its "latents" (the mode).
    """
    image = jnp.repeat(values.astype(jnp.float32)[..., None], 3, axis=-1)
    return {"image": image, "latents": vae.apply({"params": vae_params}, image, method="encode")}

"""How a new autoencoder starts."""

import jax
import numpy as np
from jaxtyping import UInt8

from codi_jax.checkpoint.parameters import Placement
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.linear_start import linear_code, linear_params
from codi_jax.typing import Params, UserError, check_choice

INITS = ("random", "linear")


def check_autoencoder_start(init: str, model: AutoencoderModel) -> None:
    """Check ``config.model.vae_init``.

    Raises:
        UserError: a start that does not exist, or that this autoencoder cannot make.
    """
    check_choice("config.model.vae_init", init, INITS)
    if init == "random":
        return
    if isinstance(model, Model) or model.directory is not None:
        raise UserError(
            "config.model.vae_init='linear' is for an autoencoder that is trained from its start: "
            "set it to 'random', or config.task='autoencoder' and config.model.pretrained=''."
        )
    if not isinstance(model.vae, AutoencoderDCConfig):
        raise UserError(
            f"config.model.vae_init='linear', but config.model.vae is an {model.vae.CLASS}, whose "
            "norms take the mean away: set it to 'random', or config.model.vae._class_name to "
            f"'{AutoencoderDCConfig.CLASS}'."
        )


def linear_start(
    model: AutoencoderModel,
    params: Params,
    pictures: UInt8[np.ndarray, "count height width 3"],
    place: Placement,
) -> Params:
    """``params`` whose autoencoder is the best linear code of ``pictures``.

    Args:
        model: passed :func:`check_autoencoder_start`.
        params: drawn at random; the silent branches keep their values.
        pictures: training crops, uint8 [N, H, W, 3].
        place: shapes to shardings.
    """
    vae = model.vae
    assert isinstance(vae, AutoencoderDCConfig)
    code = linear_code(pictures, vae.downsampling, vae.latent_channels)
    started = {"vae": linear_params(vae, params["vae"], code)}
    return jax.device_put(started, place(started))

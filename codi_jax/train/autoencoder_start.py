"""How a new autoencoder starts."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from codi_jax.checkpoint.pipeline import Pipeline, Placement
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.linear_start import linear_code, linear_params
from codi_jax.typing import UserError, check_choice

INITS = ("random", "linear")


def start_autoencoder(
    init: str, pipeline: Pipeline, pictures: Callable[[], np.ndarray], place: Placement
) -> Pipeline:
    """``pipeline``, with parameters, whose autoencoder starts as ``init`` says.

    Args:
        init: "random" leaves it as it is; "linear" makes it the best linear code of ``pictures``.
        pipeline: of an autoencoder alone, drawn at random, where ``init`` is "linear".
        pictures: gives training crops, uint8 [N, H, W, 3].
        place: shapes to shardings.

    Raises:
        UserError: another ``init``, or an autoencoder that cannot start so.
    """
    check_choice("config.model.vae_init", init, INITS)
    if init == "random":
        return pipeline
    vae = pipeline.vae
    if pipeline.unet is not None or pipeline.directory is not None:
        raise UserError(
            "config.model.vae_init='linear' is for an autoencoder that is trained from its start: "
            "set it to 'random', or config.task='autoencoder' and config.model.pretrained=''."
        )
    if not isinstance(vae, AutoencoderDCConfig):
        raise UserError(
            f"config.model.vae_init='linear', but config.model.vae is an {vae.CLASS}, whose norms "
            "take the mean away: set it to 'random', or config.model.vae._class_name to "
            f"'{AutoencoderDCConfig.CLASS}'."
        )
    code = linear_code(pictures(), vae.downsampling, vae.latent_channels)
    params = {"vae": linear_params(vae, pipeline.params["vae"], code)}
    return dataclasses.replace(pipeline, params=jax.device_put(params, place(params)))

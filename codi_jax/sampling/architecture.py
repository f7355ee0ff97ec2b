"""From the settings of a model to its architecture; no weights are read."""

import dataclasses

from codi_jax.checkpoint.directory import read_directory, with_adapter
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import autoencoder_config
from codi_jax.models.configs import UNetConfig
from codi_jax.tasks.base import Task
from codi_jax.typing import Settings


def build_architecture(options: Settings, task: Task, size: int) -> AutoencoderModel:
    """The networks of a run, without parameters: pretrained where given, else as described.

    Args:
        options: the keys of ``config.model`` in ``configs/base.py``.
        task: what the model is for.
        size: side in pixels of the pictures that it is trained on.

    Raises:
        UserError: a checkpoint that cannot be read, or parts that do not fit together.
    """
    if options["pretrained"]:
        base = read_directory(checkpoint_path(options["pretrained"]))
    else:
        base = AutoencoderModel(vae=autoencoder_config(options["vae"]))
    if not task.diffuses:
        return base
    model = base if isinstance(base, Model) else _new_unet(base, options, size)
    network = model.network
    if not network.has_adapter:
        latents = model.vae.latent_channels
        network = network.with_adapter(
            options["adapter"],
            model.vae.downsampling,
            image_channels=task.image_channels(),
            extra_latents=task.latent_channels(latents) - latents,
        )
    model = dataclasses.replace(
        model,
        network=dataclasses.replace(network, remat=options["remat"]),
        task=task.key if task.conditional else None,
        scale=task.scale,
        task_options={name: getattr(task, name) for name in task.saved},
    )
    if options["pretrained_adapter"]:
        return with_adapter(model, checkpoint_path(options["pretrained_adapter"]))
    return model


def _new_unet(base: AutoencoderModel, options: Settings, size: int) -> Model:
    """``base`` with a U-Net and a schedule as ``options`` describe them."""
    trained_at = {"sample_size": size // base.vae.downsampling}
    return Model(
        vae=base.vae,
        directory=base.directory,
        network=AdaptedUNet(unet=UNetConfig.from_config(trained_at | dict(options["unet"]))),
        schedule=schedule_from_config(options["scheduler"]),
        prediction_type=options["prediction_type"],
    )

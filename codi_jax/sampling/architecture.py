"""From the settings of a model to its architecture; no weights are read."""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.directory import read_directory, with_adapter
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import autoencoder_config
from codi_jax.models.configs import UNetConfig
from codi_jax.models.remat import remat_policy
from codi_jax.tasks.base import Task
from codi_jax.typing import Settings, UserError


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
    if options.get("autoencoder"):
        base = with_autoencoder(base, checkpoint_path(options["autoencoder"]))
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
        network=dataclasses.replace(network, remat=remat_policy(options["remat"])),
        task=task.key if task.conditional else None,
        scale=task.scale,
        task_options={name: getattr(task, name) for name in task.saved},
    )
    if options["pretrained_adapter"]:
        return with_adapter(model, checkpoint_path(options["pretrained_adapter"]))
    return model


def with_autoencoder(model: AutoencoderModel, directory: Path) -> AutoencoderModel:
    """``model`` with the autoencoder of another checkpoint, on which it must then be trained.

    Args:
        model: any; its U-Net stays.
        directory: a diffusers-format directory with ``vae/``.

    Raises:
        UserError: an autoencoder whose latents have other channels than the U-Net reads.
    """
    vae = read_directory(directory).vae
    if isinstance(model, Model) and vae.latent_channels != model.vae.latent_channels:
        raise UserError(
            f"config.model.autoencoder={directory} has latents of {vae.latent_channels} channels, "
            f"and the U-Net reads {model.vae.latent_channels}: give an autoencoder that fits."
        )
    return dataclasses.replace(model, vae=vae, vae_directory=directory / "vae")


def _new_unet(base: AutoencoderModel, options: Settings, size: int) -> Model:
    """``base`` with a U-Net and a schedule as ``options`` describe them."""
    trained_at = {"sample_size": size // base.vae.downsampling}
    return Model(
        vae=base.vae,
        directory=base.directory,
        vae_directory=base.vae_directory,
        network=AdaptedUNet(unet=UNetConfig.from_config(trained_at | dict(options["unet"]))),
        schedule=schedule_from_config(options["scheduler"]),
        prediction_type=options["prediction_type"],
    )

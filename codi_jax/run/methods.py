"""The methods: each is a loss, what is frozen for it, and its averages.

Everything else, networks, data and step, is the same for all of them.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.base import LatentLoss
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.consistency import ConsistencyLoss
from codi_jax.distill.finetune import DiffusionLoss
from codi_jax.distill.loss import Loss
from codi_jax.distill.progressive import GuidedLoss, ProgressiveLoss
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.autoencoders import InParts, make_autoencoder
from codi_jax.models.lpips import LPIPS
from codi_jax.run.config import ConfigDict
from codi_jax.tasks.base import Task
from codi_jax.train.objectives import TEACHER, autoencoder_objective, diffusion_objective
from codi_jax.train.step import Decay, Objective
from codi_jax.typing import Params, Settings, UserError, check_choice, check_fields

#: ``config.method`` -> its loss. Task "autoencoder" has a loss of its own.
LOSSES: dict[str, type[LatentLoss]] = {
    "codi": CoDiLoss,
    "finetune": DiffusionLoss,
    "consistency": ConsistencyLoss,
    "progressive": ProgressiveLoss,
    "guided": GuidedLoss,
}
#: What makes sense without a condition.
PRIOR_METHODS = ("finetune", "consistency", "progressive")
#: What distils a model that is trained already, by an earlier run.
DISTILLING = ("consistency", "progressive", "guided")


def make_loss(task: Task, method: str, options: Settings, model: AutoencoderModel) -> Loss:
    """The loss of a task and a method.

    Args:
        task: what the model is for; an autoencoder has a loss of its own.
        method: one of :data:`LOSSES`; not used for an autoencoder.
        options: fields of the loss's class.
        model: whose schedule and prediction type it is for.

    Raises:
        UserError: an unknown method, option or value.
    """
    try:
        if not isinstance(model, Model):
            reconstruction = AutoencoderLoss(**options)
            check_fields(reconstruction, "config.loss.")
            return reconstruction
        known = tuple(LOSSES) if task.conditional else PRIOR_METHODS
        check_choice("config.method", method, known)
        loss = LOSSES[method](
            schedule=model.schedule, prediction_type=model.prediction_type, **options
        )
        check_fields(loss, "config.loss.")
    except TypeError as error:
        raise UserError(f"config.loss={dict(options)} of {method!r}: {error}.") from error
    return loss


def make_objective(
    loss: Loss,
    model: AutoencoderModel,
    task: Task,
    dtype: DTypeLike,
    lpips: LPIPS | None = None,
    vae_parts: int = 1,
) -> Objective:
    """``loss`` on batches of pictures; see `diffusion_objective` for LPIPS.

    A frozen autoencoder works through a batch in ``vae_parts`` parts.
    """
    vae = make_autoencoder(model.vae, dtype)
    if not isinstance(model, Model):
        return autoencoder_objective(vae, loss)
    worker = vae if vae_parts == 1 else InParts(vae, vae_parts)
    return diffusion_objective(model.network, worker, loss, task.condition, lpips)


def vae_parts(config: ConfigDict, devices: int) -> int:
    """In how many parts the autoencoder works through a batch.

    The parts are equal, and of at most ``config.model.vae_batch`` pictures a device.
    """
    a_device = config.batch_size // config.accumulation // devices
    most = config.model.get("vae_batch") or a_device
    return next(n for n in range(1, a_device + 1) if a_device % n == 0 and a_device // n <= most)


def ema_decays(decays: Mapping[str, float], loss: Loss) -> dict[str, Decay]:
    """The averages of a run by name.

    They are those of ``config.ema`` and, for progressive distillation, the teacher.

    Raises:
        UserError: no "eval" among them.
    """
    averages: dict[str, Decay] = dict(decays)
    if "eval" not in averages:
        raise UserError("config.ema has no 'eval': the average that is sampled and exported.")
    if loss.needs.target_decay is not None:
        averages[TEACHER] = loss.needs.target_decay
    return averages


def frozen_teacher(loss: Loss, trainable: Params) -> Params:
    """Under "teacher", what a frozen teacher keeps of the parameters that will be trained."""
    if loss.needs.teacher is None:
        return {}
    parts = ("unet",) if loss.needs.teacher == "prior" else ("unet", "adapter")
    kept = {part: trainable[part] for part in parts if part in trainable}
    return {TEACHER: jax.tree.map(jnp.copy, kept)}


def check_guidance(loss: Loss, reads_scale: bool) -> None:
    """Whether the loss gives the U-Net a guidance scale must be as the U-Net has it.

    Raises:
        UserError: the student would be told what it cannot read, or not told what it needs.
    """
    given = loss.needs.scale
    if reads_scale and given is None:
        raise UserError(
            "the U-Net reads a guidance scale: set config.loss.guidance_range (the loss of "
            "method 'finetune' has none: start from another model)."
        )
    if given == "required" and not reads_scale:
        raise UserError(
            "config.loss.guidance_range is set, but the U-Net reads no guidance scale: set "
            "config.model.time_cond_proj_dim=256."
        )

"""Schedulers of checkpoints that are not sampled with here, although the noise levels are known."""

import dataclasses
from collections.abc import Mapping

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.typing import Settings, UserError

#: diffusers' schedulers whose noise levels are those of their betas. A directory with one of them
#: is exported with it; a class that diffusers lacks would make the export useless there.
BETA_SCHEDULERS = (
    *("DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler"),
    *("DDPMScheduler", "DDPMParallelScheduler", "DEISMultistepScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler"),
    *("DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler"),
    *("EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler"),
    *("LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler"),
    "UniPCMultistepScheduler",
)
#: Settings that change the noise levels, or the times that stand for them -> their usual values.
_OTHER_LEVELS = {"use_flow_sigmas": False, "timestep_type": "discrete", "snr_shift_scale": 1.0}
#: What the schedule says and not how it is sampled.
_NOISE_LEVELS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnsupportedSampler:
    """A scheduler whose noise levels are known, but not how it samples.

    Attributes:
        config: the content of its ``scheduler_config.json``.
        reason: why it is not supported, and what to do.
    """

    config: Settings
    reason: str

    @property
    def diffusers_class(self) -> str:
        """The scheduler of diffusers that it is."""
        return str(self.config.get("_class_name")).removeprefix("Flax")

    def usable(self) -> SamplerConfig:
        """Raises UserError: there are no settings to sample with."""
        raise UserError(self.reason)

    def to_config(self, schedule_config: Mapping[str, object]) -> dict[str, object]:
        """The content of a ``scheduler_config.json``: what was read, with the schedule's levels.

        Args:
            schedule_config: what the schedule writes of itself.

        Raises:
            UserError: diffusers has no such scheduler.
        """
        if self.diffusers_class not in BETA_SCHEDULERS:
            raise UserError(
                f"{self.diffusers_class} is no scheduler that this model could be written with: "
                "set _class_name to DDIMScheduler, which has the same noise levels, in the "
                "checkpoint's scheduler/scheduler_config.json."
            )
        kept = {key: schedule_config[key] for key in (*_NOISE_LEVELS, "prediction_type")}
        if schedule_config.get("rescale_betas_zero_snr") or "rescale_betas_zero_snr" in self.config:
            kept["rescale_betas_zero_snr"] = schedule_config["rescale_betas_zero_snr"]
        return {**self.config, **kept, "_class_name": self.diffusers_class}


#: How a checkpoint is sampled, if it is known.
AnySampler = SamplerConfig | UnsupportedSampler


def read_sampler(config: Mapping[str, object]) -> AnySampler:
    """The sampler that a ``scheduler_config.json`` stands for, supported or not.

    Raises:
        UserError: the noise levels of the scheduler are not those of its betas.
    """
    for key, usual in _OTHER_LEVELS.items():
        if config.get(key) not in (None, usual):
            raise UserError(
                f"scheduler config ({config.get('_class_name', 'unnamed')}) sets "
                f"{key}={config[key]!r}: its noise levels are not those of its betas, and such a "
                "model cannot be read. Use a checkpoint of the Stable Diffusion 1.x, 2.x or XL "
                "family."
            )
    try:
        return SamplerConfig.from_config(config)
    except UserError as error:
        return UnsupportedSampler(config=dict(config), reason=str(error))

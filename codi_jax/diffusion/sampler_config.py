"""How to sample: the solver and the times of its steps, ours or those of a checkpoint."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from codi_jax.diffusion.schedules import ContinuousSchedule
from codi_jax.diffusion.solvers import SOLVER_TYPES, SOLVERS
from codi_jax.diffusion.timesteps import TIMESTEP_SPACINGS
from codi_jax.typing import UserError, check_choice

FINAL_SIGMAS_TYPES = ("zero", "sigma_min")

#: What diffusers takes for a key that a scheduler_config.json leaves out, by scheduler.
_DIFFUSERS_DEFAULTS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {
        "timestep_spacing": "leading",
        "set_alpha_to_one": True,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    },
    "PNDMScheduler": {"timestep_spacing": "leading", "set_alpha_to_one": False},
    "EulerDiscreteScheduler": {"timestep_spacing": "linspace", "final_sigmas_type": "zero"},
    "DPMSolverMultistepScheduler": {
        "timestep_spacing": "linspace",
        "final_sigmas_type": "zero",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
}
_OTHER_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
#: Settings that change a scheduler's result and have no counterpart here, when switched off.
_SWITCHED_OFF: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"thresholding": False},
    "PNDMScheduler": {},
    "EulerDiscreteScheduler": {
        **dict.fromkeys(_OTHER_SIGMAS, False),
        "timestep_type": "discrete",
        "interpolation_type": "linear",
    },
    "DPMSolverMultistepScheduler": {
        **dict.fromkeys((*_OTHER_SIGMAS, "use_lu_lambdas", "use_flow_sigmas"), False),
        "thresholding": False,
        "lambda_min_clipped": -math.inf,
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The settings of `sample`; names and meanings are diffusers'.

    The default is what few-step models need: DDIM that starts at the noisiest level and ends
    at clean data.

    Attributes:
        solver: "ddim", or diffusers' ``algorithm_type`` "dpmsolver++" (DPM-Solver++, Lu et
            al. 2022b; order 2 is known as 2M) or "dpmsolver" (DPM-Solver, Lu et al. 2022a).
        solver_order: 1, 2 or 3 (see `multistep_corrections` on 3). This one and the next
            three are not used by "ddim".
        solver_type: "midpoint" or "heun", the form of second-order steps.
        lower_order_final: see `step_orders`.
        euler_at_final: see `step_orders`.
        final_sigmas_type: where the last step ends: at clean data, "zero", or at the level of
            t = 0, "sigma_min". DDIM's ``set_alpha_to_one`` True and False. "zero" makes the
            last step first-order whatever the other settings.
        timestep_spacing: see `inference_timesteps`.
        steps_offset: see `inference_timesteps`.
        clip_sample_range: clip ``x_hat`` to plus or minus this value in every step (for
            pixels; latents have no natural range). None is diffusers' ``clip_sample=False``.
            For "ddim" only.

    Raises:
        UserError: an unknown name, or a value out of range.
    """

    solver: str = "ddim"
    solver_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    final_sigmas_type: str = "zero"
    timestep_spacing: str = "trailing"
    steps_offset: int = 0
    clip_sample_range: float | None = None

    def __post_init__(self) -> None:
        check_choice("solver", self.solver, SOLVERS)
        check_choice("solver_type", self.solver_type, SOLVER_TYPES)
        check_choice("final_sigmas_type", self.final_sigmas_type, FINAL_SIGMAS_TYPES)
        check_choice("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        if self.solver_order not in (1, 2, 3):
            raise UserError(f"solver_order={self.solver_order} must be 1, 2 or 3.")
        if self.clip_sample_range is not None and self.solver != "ddim":
            raise UserError(
                f"clip_sample_range={self.clip_sample_range} works with solver='ddim' only, not "
                f"with {self.solver!r}: set it to None."
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SamplerConfig":
        """The sampler that a ``scheduler_config.json`` stands for, ours or of a checkpoint.

        A missing key means what diffusers takes it for. Two schedulers are read as "ddim":

        * EulerDiscrete is the same map: its Euler step of ``z / alpha`` over
          ``sigma / alpha`` is DDIM. Times of "linspace" are rounded to the grid here.
        * PNDM takes its times and its end from the config as DDIM does, and solves the same
          ODE with a multistep formula that is not implemented: results agree as the steps
          become many.

        Raises:
            UserError: another scheduler, or a setting that is not supported; a checkpoint can
                still be sampled with settings of your own.
        """
        class_name = config.get("_class_name", "unnamed")
        if class_name == ContinuousSchedule.__name__:
            return cls()
        # Stable Diffusion's files were also written by diffusers' former Flax classes.
        diffusers_class = class_name.removeprefix("Flax")
        if diffusers_class not in _DIFFUSERS_DEFAULTS:
            raise UserError(
                f"the sampler of {class_name} is not supported (only "
                f"{', '.join(_DIFFUSERS_DEFAULTS)}): give a SamplerConfig of your own."
            )
        for key, off in _SWITCHED_OFF[diffusers_class].items():
            if config.get(key) not in (None, off):
                raise UserError(
                    f"scheduler config ({class_name}) sets {key}={config[key]!r}, which is not "
                    f"supported: set it to {off!r}, or give a SamplerConfig of your own."
                )
        # Files hold keys that their scheduler does not know (Stable Diffusion XL's Euler has
        # set_alpha_to_one=False, and ends at clean data): only known ones count.
        defaults = {"steps_offset": 0, **_DIFFUSERS_DEFAULTS[diffusers_class]}
        known = {key: config.get(key, default) for key, default in defaults.items()}
        if "set_alpha_to_one" in known:
            set_alpha_to_one = known.pop("set_alpha_to_one")
            known["final_sigmas_type"] = "zero" if set_alpha_to_one else "sigma_min"
        if not known.pop("clip_sample", False):
            known.pop("clip_sample_range", None)
        return cls(solver=known.pop("algorithm_type", "ddim"), **known)

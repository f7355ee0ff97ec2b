"""How to sample: the solver and the times of its steps, ours or those of a checkpoint."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from codi_jax.diffusion.schedules import ContinuousSchedule
from codi_jax.diffusion.solvers import SOLVER_TYPES, SOLVERS, STOCHASTIC_SOLVERS
from codi_jax.diffusion.timesteps import TIMESTEP_SPACINGS
from codi_jax.typing import UserError, check_choice, check_fields

FINAL_SIGMAS_TYPES = ("zero", "sigma_min")

#: What diffusers takes for a key that a scheduler_config.json leaves out, by scheduler: all
#: keys that are read and written.
_DIFFUSERS_DEFAULTS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {
        "timestep_spacing": "leading",
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "clip_sample": True,
        "clip_sample_range": 1.0,
    },
    "PNDMScheduler": {
        "timestep_spacing": "leading",
        "steps_offset": 0,
        "set_alpha_to_one": False,
    },
    "EulerDiscreteScheduler": {
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "final_sigmas_type": "zero",
    },
    "HeunDiscreteScheduler": {
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "clip_sample": False,
        "clip_sample_range": 1.0,
    },
    "DPMSolverMultistepScheduler": {
        "timestep_spacing": "linspace",
        "steps_offset": 0,
        "final_sigmas_type": "zero",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
    },
    "DPMSolverSinglestepScheduler": {
        "final_sigmas_type": "zero",
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "lower_order_final": False,
    },
    "LCMScheduler": {
        "original_inference_steps": 50,
        "timestep_scaling": 10.0,
        "clip_sample": False,
        "clip_sample_range": 1.0,
    },
}
_OTHER_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_DPM_SWITCHES: dict[str, Any] = {
    **dict.fromkeys((*_OTHER_SIGMAS, "use_flow_sigmas"), False),
    "thresholding": False,
    "lambda_min_clipped": -math.inf,
}
#: Settings that change a scheduler's result and have no counterpart here, when switched off.
_SWITCHED_OFF: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"thresholding": False},
    "PNDMScheduler": {},
    "EulerDiscreteScheduler": {
        **dict.fromkeys(_OTHER_SIGMAS, False),
        "timestep_type": "discrete",
        "interpolation_type": "linear",
    },
    "HeunDiscreteScheduler": dict.fromkeys(_OTHER_SIGMAS, False),
    "DPMSolverMultistepScheduler": {**_DPM_SWITCHES, "use_lu_lambdas": False},
    "DPMSolverSinglestepScheduler": _DPM_SWITCHES,
    "LCMScheduler": {"thresholding": False},
}
_REMEDY = "choose a solver, e.g. --solver=ddim (in Python solver='ddim')."
#: Schedulers that cannot start at alpha = 0.
_NO_RESCALING = ("HeunDiscreteScheduler", "DPMSolverSinglestepScheduler")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The settings of `sample`; names and meanings are diffusers'.

    The default is what few-step models need: DDIM that starts at the noisiest level and ends
    at clean data.

    Attributes:
        solver: one of `SOLVERS`: "ddim"; "heun" (Karras et al. 2022, two calls a step);
            diffusers' ``algorithm_type`` "dpmsolver++" (DPM-Solver++, Lu et al. 2022b; order 2
            is known as 2M), its stochastic "sde-dpmsolver++", or "dpmsolver" (DPM-Solver, Lu
            et al. 2022a), multistep; the two with "singlestep-" before their name (DPM-Solver-2
            and -3); "consistency", the stochastic multistep sampler of consistency models.
        solver_order: 1, 2 or 3 (see `multistep_corrections` and `singlestep_corrections` on
            3); 1 or 2 for "sde-dpmsolver++". This one and the next three are used by the DPM
            solvers only.
        solver_type: "midpoint" or "heun", the form of second-order steps.
        lower_order_final: see `step_orders` and `singlestep_orders`.
        euler_at_final: likewise.
        final_sigmas_type: where the last step ends: at clean data, "zero", or at the level of
            t = 0, "sigma_min". DDIM's ``set_alpha_to_one`` True and False. "zero" makes the
            last step first-order whatever the other settings.
        timestep_spacing: see `inference_timesteps`. Not used by "consistency".
        steps_offset: likewise.
        clip_sample_range: clip ``x_hat`` to plus or minus this value in every step (for
            pixels; latents have no natural range). None is diffusers' ``clip_sample=False``.
            For "ddim" only.
        original_inference_steps: the number of times that a consistency model was distilled
            at, see `consistency_timesteps`. For "consistency" only, as the next one.
        timestep_scaling: see `boundary_scalings`.

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
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("solver", self.solver, SOLVERS)
        check_choice("solver_type", self.solver_type, SOLVER_TYPES)
        check_choice("final_sigmas_type", self.final_sigmas_type, FINAL_SIGMAS_TYPES)
        check_choice("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        if self.solver_order not in (1, 2, 3):
            raise UserError(f"solver_order={self.solver_order} must be 1, 2 or 3.")
        if self.solver == "sde-dpmsolver++" and self.solver_order == 3:
            raise UserError("solver_order=3 does not exist for 'sde-dpmsolver++': set 1 or 2.")
        if self.solver == "consistency" and self.final_sigmas_type != "zero":
            raise UserError(
                f"final_sigmas_type={self.final_sigmas_type!r} does not work with "
                "solver='consistency', which ends at clean data: set it to 'zero'."
            )
        if self.clip_sample_range is not None and self.solver != "ddim":
            raise UserError(
                f"clip_sample_range={self.clip_sample_range} works with solver='ddim' only, not "
                f"with {self.solver!r}: set it to None."
            )

    @property
    def stochastic(self) -> bool:
        """Whether the solver draws noise in every step."""
        return self.solver in STOCHASTIC_SOLVERS

    def usable(self) -> "SamplerConfig":
        """These settings; other schedulers of checkpoints have none."""
        return self

    @property
    def diffusers_class(self) -> str:
        """The scheduler of diffusers that samples so."""
        names = {
            "ddim": "DDIMScheduler",
            "heun": "HeunDiscreteScheduler",
            "consistency": "LCMScheduler",
        }
        kind = "Singlestep" if self.solver.startswith("singlestep-") else "Multistep"
        return names.get(self.solver, f"DPMSolver{kind}Scheduler")

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "SamplerConfig":
        """The sampler that a ``scheduler_config.json`` stands for, ours or of a checkpoint.

        A missing key means what diffusers takes it for. Two other schedulers than DDIM's are
        read as "ddim":

        * EulerDiscrete is the same map: its Euler step of ``z / alpha`` over
          ``sigma / alpha`` is DDIM. Times of "linspace" are rounded to the grid here, also
          those of HeunDiscrete.
        * PNDM takes its times and its end from the config as DDIM does, and solves the same
          ODE with a multistep formula that is not implemented: results agree as the steps
          become many.

        Raises:
            UserError: another scheduler, or a setting that is not supported; a checkpoint can
                still be sampled with settings of your own.
        """
        values: dict[str, Any] = dict(config)
        class_name = str(values.get("_class_name", "unnamed"))
        if class_name == ContinuousSchedule.__name__:
            names = {field.name for field in dataclasses.fields(cls)}
            return cls(**{key: value for key, value in values.items() if key in names})
        # Stable Diffusion's files were also written by diffusers' former Flax classes.
        diffusers_class = class_name.removeprefix("Flax")
        if diffusers_class not in _DIFFUSERS_DEFAULTS:
            raise UserError(
                f"the sampler of {class_name} is not supported (only "
                f"{', '.join(_DIFFUSERS_DEFAULTS)}): {_REMEDY}"
            )
        for key, off in _SWITCHED_OFF[diffusers_class].items():
            if values.get(key) not in (None, off):
                raise UserError(
                    f"scheduler config ({class_name}) sets {key}={values[key]!r}, which is not "
                    f"supported: {_REMEDY} Or set it to {off!r} in that file."
                )
        # Files hold keys that their scheduler does not know (Stable Diffusion XL's Euler has
        # set_alpha_to_one=False, and ends at clean data): only known ones count.
        defaults = _DIFFUSERS_DEFAULTS[diffusers_class]
        known = {key: values.get(key, default) for key, default in defaults.items()}
        if "set_alpha_to_one" in known:
            set_alpha_to_one = known.pop("set_alpha_to_one")
            known["final_sigmas_type"] = "zero" if set_alpha_to_one else "sigma_min"
        if not known.pop("clip_sample", False):
            known.pop("clip_sample_range", None)
        if diffusers_class == "DPMSolverSinglestepScheduler":
            known["algorithm_type"] = "singlestep-" + known["algorithm_type"]
            known["timestep_spacing"] = "linspace"  # diffusers has no other for it
        others = {"HeunDiscreteScheduler": "heun", "LCMScheduler": "consistency"}
        solver = others.get(diffusers_class, "ddim")
        return cls(solver=known.pop("algorithm_type", solver), **known)

    def to_config(self, schedule_config: Mapping[str, object]) -> dict[str, object]:
        """The content of a ``scheduler_config.json``; `from_config` reads it back.

        Args:
            schedule_config: what the schedule writes of itself.

        Returns:
            That of `diffusers_class`. With a schedule that diffusers does not know, our own
            settings where they are not the default.

        Raises:
            UserError: the scheduler in diffusers cannot do what is set.
        """
        if schedule_config["_class_name"] == ContinuousSchedule.__name__:
            default = SamplerConfig()
            own = dataclasses.asdict(self).items()
            return {**schedule_config, **{k: v for k, v in own if v != getattr(default, k)}}
        settings: dict[str, Any] = {
            **dataclasses.asdict(self),
            "algorithm_type": self.solver.removeprefix("singlestep-"),
            "set_alpha_to_one": self.final_sigmas_type == "zero",
            "clip_sample": self.clip_sample_range is not None,
            "clip_sample_range": self.clip_sample_range or 1.0,
        }
        name = self.diffusers_class
        others = _DIFFUSERS_DEFAULTS["DDIMScheduler"]  # the schedule's config is a DDIM's
        config = {key: value for key, value in schedule_config.items() if key not in others}
        config |= {key: settings[key] for key in _DIFFUSERS_DEFAULTS[name]} | {"_class_name": name}
        self._check_diffusers_can(config)
        return config

    def _check_diffusers_can(self, config: Mapping[str, object]) -> None:
        name, read = config["_class_name"], SamplerConfig.from_config(config)
        lost = [
            (key, getattr(self, key), getattr(read, key))
            for key in ("timestep_spacing", "final_sigmas_type", "euler_at_final")
            if self.solver != "consistency" and getattr(self, key) != getattr(read, key)
        ]
        if self.solver.endswith("dpmsolver") and self.final_sigmas_type == "zero":
            lost.append(("final_sigmas_type", "zero", "sigma_min"))
        if name in _NO_RESCALING and config.get("rescale_betas_zero_snr"):
            lost.append(("rescale_betas_zero_snr", True, False))
        for key, value, only in lost:
            raise UserError(
                f"{key}={value!r} with solver={self.solver!r} cannot be written: {name} has only "
                f"{only!r}."
            )

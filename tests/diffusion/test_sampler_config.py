"""Sampler settings of checkpoints: scheduler_config.json files as they are published."""

import json

import pytest

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import (
    ContinuousSchedule,
    DiscreteSchedule,
    schedule_from_config,
)
from codi_jax.typing import UserError

STABLE_DIFFUSION = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD_1_5 = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **STABLE_DIFFUSION}
SD_2_1 = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "prediction_type": "v_prediction",
    **STABLE_DIFFUSION,
}
SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
    **STABLE_DIFFUSION,
}
PIXART = {
    "_class_name": "DPMSolverMultistepScheduler",
    "_diffusers_version": "0.22.0.dev0",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "lambda_min_clipped": float("-inf"),
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_type": "midpoint",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_karras_sigmas": False,
    "use_lu_lambdas": False,
    "variance_type": None,
}


@pytest.mark.parametrize("prefix", ["", "Flax"])
@pytest.mark.parametrize("config", [SD_1_5, SD_2_1])
def test_stable_diffusion(config, prefix):
    # Both were written before diffusers knew timestep_spacing.
    config = config | {"_class_name": prefix + config["_class_name"]}
    assert schedule_from_config(config) == DiscreteSchedule()
    assert SamplerConfig.from_config(config) == SamplerConfig(
        timestep_spacing="leading", steps_offset=1, final_sigmas_type="sigma_min"
    )


def test_stable_diffusion_xl():
    # Euler does not know set_alpha_to_one: it ends at clean data.
    assert SamplerConfig.from_config(SDXL) == SamplerConfig(
        timestep_spacing="leading", steps_offset=1
    )
    assert schedule_from_config(SDXL) == DiscreteSchedule()


def test_dpm_solver():
    assert SamplerConfig.from_config(PIXART) == SamplerConfig(
        solver="dpmsolver++", timestep_spacing="linspace"
    )
    changed = {
        "solver_order": 3,
        "solver_type": "heun",
        "lower_order_final": False,
        "euler_at_final": True,
        "final_sigmas_type": "sigma_min",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
    }
    config = PIXART | changed | {"algorithm_type": "dpmsolver"}
    assert SamplerConfig.from_config(config) == SamplerConfig(solver="dpmsolver", **changed)


def test_missing_keys_mean_what_diffusers_takes_them_for():
    expected = {
        "DDIMScheduler": SamplerConfig(timestep_spacing="leading", clip_sample_range=1.0),
        "PNDMScheduler": SamplerConfig(timestep_spacing="leading", final_sigmas_type="sigma_min"),
        "EulerDiscreteScheduler": SamplerConfig(timestep_spacing="linspace"),
        "HeunDiscreteScheduler": SamplerConfig(solver="heun", timestep_spacing="linspace"),
        "DPMSolverMultistepScheduler": SamplerConfig(
            solver="dpmsolver++", timestep_spacing="linspace"
        ),
        "DPMSolverSinglestepScheduler": SamplerConfig(
            solver="singlestep-dpmsolver++", timestep_spacing="linspace", lower_order_final=False
        ),
        "LCMScheduler": SamplerConfig(solver="consistency"),
    }
    for name, config in expected.items():
        assert SamplerConfig.from_config({"_class_name": name}) == config
    clipping = {"_class_name": "DDIMScheduler", "clip_sample_range": 2.0}
    assert SamplerConfig.from_config(clipping).clip_sample_range == 2.0


@pytest.mark.parametrize("schedule", [DiscreteSchedule(), ContinuousSchedule()], ids=str)
def test_our_own_files_give_the_default(schedule):
    assert SamplerConfig.from_config(schedule.to_config("v_prediction")) == SamplerConfig()


@pytest.mark.parametrize("schedule", [DiscreteSchedule(), ContinuousSchedule()], ids=str)
@pytest.mark.parametrize(
    "sampler",
    [
        SamplerConfig(),
        SamplerConfig(clip_sample_range=2.0, timestep_spacing="leading", steps_offset=1),
        SamplerConfig(solver="heun", timestep_spacing="linspace"),
        SamplerConfig(solver="sde-dpmsolver++", solver_order=1, final_sigmas_type="sigma_min"),
        SamplerConfig(
            solver="dpmsolver",
            solver_order=3,
            solver_type="heun",
            euler_at_final=True,
            final_sigmas_type="sigma_min",
        ),
        SamplerConfig(solver="singlestep-dpmsolver++", timestep_spacing="linspace"),
        SamplerConfig(solver="consistency", original_inference_steps=20, timestep_scaling=1.0),
    ],
    ids=lambda sampler: sampler.solver,
)
def test_what_is_written_is_read_back(sampler, schedule):
    config = json.loads(json.dumps(sampler.to_config(schedule.to_config("v_prediction"))))
    assert SamplerConfig.from_config(config) == sampler
    assert schedule_from_config(config) == schedule
    assert config["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("settings", "rescale", "message"),
    [
        ({"solver": "singlestep-dpmsolver++"}, False, "'trailing'.*Singlestep.*only 'linspace'"),
        ({"solver": "heun", "final_sigmas_type": "sigma_min"}, False, "'sigma_min'.*only 'zero'"),
        ({"solver": "dpmsolver"}, False, "'zero' with solver='dpmsolver'.*only 'sigma_min'"),
        ({"solver": "heun"}, True, "rescale_betas_zero_snr=True.*Heun.*only False"),
    ],
)
def test_what_diffusers_cannot_do_is_not_written(settings, rescale, message):
    schedule = DiscreteSchedule(rescale_betas_zero_snr=rescale)
    with pytest.raises(UserError, match=message):
        SamplerConfig(**settings).to_config(schedule.to_config())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "unnamed"),
        (SD_1_5 | {"_class_name": "DDPMScheduler"}, "sampler of DDPMScheduler.*DDIMScheduler"),
        (
            SDXL | {"use_karras_sigmas": True},
            "Euler.*karras_sigmas=True.*=ddim.*to False",
        ),
        (SDXL | {"timestep_type": "continuous"}, "timestep_type='continuous'"),
        (PIXART | {"lambda_min_clipped": -5.1}, "lambda_min_clipped=-5.1"),
        (PIXART | {"use_flow_sigmas": True}, "use_flow_sigmas"),
        (SD_2_1 | {"thresholding": True}, "thresholding=True"),
        ({"_class_name": "HeunDiscreteScheduler", "use_karras_sigmas": True}, "Heun.*karras"),
        ({"_class_name": "HeunDiscreteScheduler", "clip_sample": True}, "range=1.0.*'heun'"),
        ({"_class_name": "LCMScheduler", "thresholding": True}, "LCM.*thresholding"),
        (
            {"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver++"},
            "'singlestep-sde-dpmsolver",
        ),
        (PIXART | {"algorithm_type": "sde-dpmsolver"}, "'sde-dpmsolver'.*ddim, dpmsolver"),
    ],
)
def test_what_cannot_be_followed_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        SamplerConfig.from_config(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "euler"}, "solver='euler'.*dpmsolver"),
        ({"solver_order": 4}, "solver_order=4"),
        ({"solver_order": "2"}, "solver_order='2' is of a wrong type: int"),
        ({"steps_offset": True}, "steps_offset=True is of a wrong type"),
        ({"clip_sample_range": [1.0]}, "clip_sample_range=.1.0. is of a wrong type: float . None"),
        ({"solver": "sde-dpmsolver++", "solver_order": 3}, "solver_order=3.*sde.*1 or 2"),
        ({"solver": "consistency", "final_sigmas_type": "sigma_min"}, "'sigma_min'.*'zero'"),
        ({"solver_type": "logrho"}, "'logrho'.*midpoint, heun"),
        ({"final_sigmas_type": "one"}, "'one'.*zero, sigma_min"),
        ({"timestep_spacing": "karras"}, "'karras'.*trailing"),
        ({"solver": "dpmsolver++", "clip_sample_range": 1.0}, "clip_sample_range=1.0.*ddim"),
    ],
)
def test_bad_values_are_refused(unchecked, settings, message):
    with pytest.raises(UserError, match=message):
        SamplerConfig(**settings)

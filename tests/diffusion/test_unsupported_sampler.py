"""Schedulers beside those that are sampled with: their noise levels are read all the same."""

import pytest

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import DiscreteSchedule, schedule_from_config
from codi_jax.diffusion.unsupported_sampler import (
    BETA_SCHEDULERS,
    UnsupportedSampler,
    read_sampler,
)
from codi_jax.typing import UserError

pytestmark = pytest.mark.usefixtures("unchecked")
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@pytest.mark.parametrize(
    "config",
    [
        *({"_class_name": name} for name in BETA_SCHEDULERS),
        {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver"},
        {"_class_name": "DDIMScheduler", "thresholding": True},
        {"_class_name": "DDIMScheduler", "steps_offset": "one"},
        {"_class_name": "MySolver"},
    ],
    ids=str,
)
def test_all_are_read_and_only_sampling_may_be_refused(config):
    config = BETAS | config
    assert schedule_from_config(config) == DiscreteSchedule()
    sampler = read_sampler(config)
    if isinstance(sampler, SamplerConfig):
        assert sampler.usable() is sampler
        return
    with pytest.raises(UserError, match="solver|steps_offset='one'"):
        sampler.usable()


def test_what_was_read_is_written():
    config = BETAS | {"_class_name": "FlaxDDPMScheduler", "variance_type": "fixed_small"}
    written = read_sampler(config).to_config(DiscreteSchedule().to_config("v_prediction"))
    want = {"_class_name": "DDPMScheduler", "prediction_type": "v_prediction"}
    assert written == config | want
    rescaled = DiscreteSchedule(rescale_betas_zero_snr=True).to_config("v_prediction")
    assert read_sampler(config).to_config(rescaled)["rescale_betas_zero_snr"] is True
    with pytest.raises(UserError, match="MySolver is no scheduler.*DDIMScheduler"):
        read_sampler({"_class_name": "MySolver"}).to_config(rescaled)


@pytest.mark.parametrize(
    "setting",
    [{"use_flow_sigmas": True}, {"timestep_type": "continuous"}, {"snr_shift_scale": 3.0}],
)
def test_other_noise_levels_are_refused_altogether(setting):
    with pytest.raises(UserError, match=f"{next(iter(setting))}=.*not those of its betas"):
        read_sampler(BETAS | {"_class_name": "EulerDiscreteScheduler"} | setting)


def test_the_class_is_kept():
    sampler = UnsupportedSampler(config={"_class_name": "FlaxDDPMScheduler"}, reason="so")
    assert sampler.diffusers_class == "DDPMScheduler"

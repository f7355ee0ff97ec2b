"""Zero terminal SNR and the other solvers against PyTorch diffusers' schedulers."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.diffusion.sampler import step_infos  # noqa: E402
from codi_jax.diffusion.sampler_config import SamplerConfig  # noqa: E402
from codi_jax.diffusion.schedules import (  # noqa: E402
    DiscreteSchedule,
    schedule_from_config,
)
from codi_jax.diffusion.solvers import singlestep_orders  # noqa: E402
from codi_jax.diffusion.timesteps import (  # noqa: E402
    consistency_timesteps,
)
from tests.parity.schedulers import (  # noqa: E402
    SD_BETAS,
    N,
    assert_same,
    config_of,
    ddim,
    dpm,
    ours,
    scheduler,
    theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class AlmostZeroSNR(DiscreteSchedule):
    """With diffusers' alpha at the last timestep, which it keeps from being 0."""

    def alpha_sigma(self, t):
        alpha, sigma = super().alpha_sigma(t)
        return jnp.where(alpha == 0, jnp.float32(2**-12), alpha), sigma


ZERO_SNR = {
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "prediction_type": "v_prediction",
}


def test_ddim_with_zero_terminal_snr():
    for steps in (1, 4, 20):
        assert_same(ddim(**ZERO_SNR), steps)


# "dpmsolver" loses digits in diffusers: its first step subtracts multiples of 1 / alpha = 4096.
@pytest.mark.parametrize(
    ("algorithm_type", "tolerance"), [("dpmsolver++", 1e-4), ("dpmsolver", 1e-2)]
)
@pytest.mark.parametrize("solver_order", [2, 3])
def test_dpm_solver_with_zero_terminal_snr(solver_order, algorithm_type, tolerance):
    theirs_ = dpm(
        **ZERO_SNR,
        solver_order=solver_order,
        algorithm_type=algorithm_type,
        final_sigmas_type="sigma_min",
    )
    almost = AlmostZeroSNR(**SD_BETAS, rescale_betas_zero_snr=True)
    for steps in (4, 20):
        expected = theirs(theirs_, steps)
        result = ours(theirs_, steps, almost)
        np.testing.assert_allclose(result, expected, atol=tolerance, rtol=0)
        # With alpha = 0 instead of 2^-12 the first noise, of size 1 to 3, weighs 2.4e-4 less.
        np.testing.assert_allclose(ours(theirs_, steps), result, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("spacing", "steps", "prediction_type"),
    [("leading", 20, "epsilon"), ("trailing", 4, "v_prediction"), ("linspace", 10, "epsilon")],
)
def test_euler_is_ddim(spacing, steps, prediction_type):
    # Stable Diffusion XL's scheduler.
    theirs_ = scheduler(
        "EulerDiscreteScheduler",
        timestep_spacing=spacing,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    assert_same(theirs_, steps)


def test_pndm_approaches_ddim():
    theirs_ = scheduler(
        "PNDMScheduler", steps_offset=1, skip_prk_steps=True, prediction_type="v_prediction"
    )
    coarse, fine = (
        np.abs(theirs(theirs_, steps) - ours(theirs_, steps)).max() for steps in (20, 200)
    )
    assert fine < 0.2 * coarse


@pytest.mark.parametrize("solver_order", [1, 2, 3])
@pytest.mark.parametrize(
    ("algorithm_type", "final_sigmas_type"),
    [("dpmsolver++", "zero"), ("dpmsolver++", "sigma_min"), ("dpmsolver", "sigma_min")],
)
def test_singlestep_dpm_solver(algorithm_type, final_sigmas_type, solver_order):
    settings = {
        "algorithm_type": algorithm_type,
        "final_sigmas_type": final_sigmas_type,
        "solver_order": solver_order,
    }
    for steps, solver_type, kind in [
        (4, "midpoint", "v_prediction"),
        (11, "heun", "epsilon"),
        (12, "heun", "sample"),
    ]:
        theirs_ = scheduler(
            "DPMSolverSinglestepScheduler",
            **settings,
            solver_type=solver_type,
            prediction_type=kind,
            lower_order_final=steps != 12,
        )
        assert_same(theirs_, steps)


@pytest.mark.parametrize("final_sigmas_type", ["zero", "sigma_min"])
@pytest.mark.parametrize("lower_order_final", [True, False])
@pytest.mark.parametrize("solver_order", [1, 2, 3])
def test_orders_of_singlestep_calls(solver_order, lower_order_final, final_sigmas_type):
    for steps in range(1, 20):
        theirs_ = scheduler(
            "DPMSolverSinglestepScheduler",
            solver_order=solver_order,
            lower_order_final=lower_order_final,
            final_sigmas_type=final_sigmas_type,
        )
        theirs_.set_timesteps(steps)  # it also changes lower_order_final
        assert theirs_.order_list == singlestep_orders(
            steps,
            solver_order,
            lower_order_final=lower_order_final,
            euler_at_final=final_sigmas_type == "zero",
        )


@pytest.mark.parametrize(
    ("prediction_type", "spacing", "steps"),
    [
        ("epsilon", "leading", 20),
        ("sample", "linspace", 10),
        ("v_prediction", "trailing", 4),
        ("v_prediction", "leading", 1),
    ],
)
def test_heun(prediction_type, spacing, steps):
    theirs_ = scheduler(
        "HeunDiscreteScheduler",
        timestep_spacing=spacing,
        prediction_type=prediction_type,
        steps_offset=1,
    )
    assert_same(theirs_, steps)
    info = step_infos(schedule_from_config(theirs_.config), SamplerConfig(solver="heun"), steps)
    assert len(info.t) == len(theirs_.timesteps) == 2 * steps - 1


@pytest.mark.parametrize(
    ("prediction_type", "steps", "settings"),
    [
        ("v_prediction", 4, {}),
        ("epsilon", 20, {"solver_type": "heun"}),
        ("sample", 4, {"solver_order": 1, "final_sigmas_type": "sigma_min"}),
        # diffusers starts at alpha = 2^-12 instead of 0.
        ("v_prediction", 20, {**ZERO_SNR, "final_sigmas_type": "sigma_min"}),
    ],
)
def test_sde_dpm_solver(prediction_type, steps, settings):
    settings = {"algorithm_type": "sde-dpmsolver++", "prediction_type": prediction_type} | settings
    tolerance = 1e-3 if "rescale_betas_zero_snr" in settings else 1e-4
    assert_same(dpm(**settings), steps, tolerance)


def test_consistency_timesteps():
    for original in (45, 50, 1000):
        theirs_ = scheduler("LCMScheduler", original_inference_steps=original)
        for steps in range(1, original + 1, 1 if original < 100 else 37):
            theirs_.set_timesteps(steps)
            times = consistency_timesteps(N, steps, original)
            np.testing.assert_array_equal(times, theirs_.timesteps)


@pytest.mark.parametrize(
    ("prediction_type", "steps", "settings"),
    [
        ("sample", 1, {}),
        ("v_prediction", 4, {"timestep_scaling": 1e-3}),  # both scalings are felt
        ("epsilon", 8, {"original_inference_steps": 100, "set_alpha_to_one": False}),
    ],
)
def test_consistency_sampler(prediction_type, steps, settings):
    assert_same(scheduler("LCMScheduler", prediction_type=prediction_type, **settings), steps)


@pytest.mark.parametrize(
    "theirs_",
    [
        ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
        ("DDIMScheduler", {"clip_sample_range": 0.5}),
        ("HeunDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", {"solver_order": 3, "euler_at_final": True}),
        ("DPMSolverSinglestepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
        ("LCMScheduler", {"original_inference_steps": 100, "timestep_scaling": 5.0}),
    ],
    ids=str,
)
def test_diffusers_reads_the_scheduler_config_that_we_write(theirs_):
    name, settings = theirs_
    original = scheduler(name, prediction_type="v_prediction", **settings)
    read = config_of(original)
    written = SamplerConfig.from_config(read).to_config(
        schedule_from_config(read).to_config("v_prediction")
    )
    assert written["_class_name"] == name
    again = getattr(diffusers, name).from_config(written)
    assert SamplerConfig.from_config(config_of(again)) == SamplerConfig.from_config(read)
    for key in written.keys() & original.config.keys() - {"_class_name"}:
        assert again.config[key] == original.config[key], key

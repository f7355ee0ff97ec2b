"""Schedules, timesteps, DDIM and the multistep solvers against PyTorch diffusers' schedulers."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.diffusion.sampler import step_infos  # noqa: E402
from codi_jax.diffusion.sampler_config import SamplerConfig  # noqa: E402
from codi_jax.diffusion.schedules import (  # noqa: E402
    BETA_SCHEDULES,
    DiscreteSchedule,
    schedule_from_config,
)
from codi_jax.diffusion.timesteps import (  # noqa: E402
    TIMESTEP_SPACINGS,
    inference_timesteps,
)
from codi_jax.typing import UserError  # noqa: E402
from tests.parity.schedulers import (  # noqa: E402
    SD_BETAS,
    STEPS,
    N,
    assert_same,
    config_of,
    ddim,
    dpm,
    ours,
    theirs,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_alphas_cumprod(name, rescale):
    settings = {"beta_schedule": name, "rescale_betas_zero_snr": rescale}
    expected = ddim(**settings).alphas_cumprod.double().numpy()
    alpha, sigma = DiscreteSchedule(**settings).alpha_sigma(jnp.arange(N))
    # diffusers multiplies a thousand betas in float32.
    np.testing.assert_allclose(np.float64(alpha) ** 2, expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.float64(sigma) ** 2, 1 - expected, atol=1e-6, rtol=0)
    assert (alpha[-1] == 0) == rescale == (expected[-1] == 0)


@pytest.mark.parametrize("steps_offset", [0, 1])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("make", [ddim, dpm])
def test_timesteps(make, spacing, steps_offset):
    theirs_ = make(timestep_spacing=spacing, steps_offset=steps_offset)
    for steps in (*range(1, 100), *range(100, N - 1, 7)):
        theirs_.set_timesteps(steps)
        # Rounding errors give some "trailing" runs a time more than asked for, t = -1.
        expected = theirs_.timesteps.numpy()[:steps]
        times = inference_timesteps(N, steps, spacing, steps_offset, endpoint=make is ddim)
        np.testing.assert_array_equal(times, expected)


def test_as_many_steps_as_timesteps():
    for spacing in TIMESTEP_SPACINGS:
        assert inference_timesteps(N, N, spacing).tolist() == list(range(N))[::-1]
    for spacing in ("leading", "linspace"):  # diffusers repeats timesteps
        with pytest.raises(UserError, match="between 1 and 999"):
            inference_timesteps(N, N, spacing, endpoint=False)


@pytest.mark.parametrize("final_sigmas_type", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_noise_levels_of_the_steps(beta_schedule, spacing, final_sigmas_type):
    settings = {"beta_schedule": beta_schedule, "timestep_spacing": spacing}
    theirs_ = dpm(**settings, final_sigmas_type=final_sigmas_type)
    config = SamplerConfig.from_config(config_of(theirs_))
    for steps in STEPS:
        theirs_.set_timesteps(steps)
        info = step_infos(schedule_from_config(theirs_.config), config, steps)
        np.testing.assert_array_equal(info.t, theirs_.timesteps)
        for i, (alpha, sigma) in enumerate(
            [(info.alpha_t, info.sigma_t), (info.x_weights.sum(1), info.eps_weights.sum(1))]
        ):
            levels = theirs_._sigma_to_alpha_sigma_t(theirs_.sigmas[i : i + steps])
            np.testing.assert_allclose(alpha, levels[0], rtol=2e-5, atol=1e-7)
            np.testing.assert_allclose(sigma, levels[1], rtol=2e-3 if steps > 20 else 5e-4)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize(("spacing", "offset"), [("trailing", 0), ("leading", 0), ("leading", 1)])
def test_ddim(spacing, offset, set_alpha_to_one):
    settings = {
        "timestep_spacing": spacing,
        "steps_offset": offset,
        "set_alpha_to_one": set_alpha_to_one,
    }
    for steps in (1, 20):
        assert_same(ddim(**settings, prediction_type="v_prediction"), steps)
    assert_same(ddim(**settings, prediction_type="epsilon"), 10)


class DDIMBetweenTimesteps(diffusers.DDIMScheduler):
    """diffusers' DDIM, told where each step ends.

    It assumes steps of N // n, and so ends short of the next timestep where "linspace" or
    rounding spaces them otherwise.
    """

    def step(self, model_output, timestep, sample):
        later = [s for s in self.timesteps.tolist() if s < timestep]
        self.num_inference_steps = 1
        self.register_to_config(num_train_timesteps=int(timestep) - (later[0] if later else -1))
        return super().step(model_output, timestep, sample)


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 2), ("linspace", 10), ("trailing", 7)])
def test_ddim_steps_end_where_the_next_begins(spacing, steps):
    settings = {**SD_BETAS, "timestep_spacing": spacing, "clip_sample": False}
    between = DDIMBetweenTimesteps(**settings)
    expected = theirs(between, steps)
    result = ours(ddim(timestep_spacing=spacing), steps)
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_ddim_that_clips():
    for clip_sample_range in (1.0, 0.5):
        theirs_ = ddim(clip_sample=True, clip_sample_range=clip_sample_range)
        assert_same(theirs_, 4)


@pytest.mark.parametrize("solver_order", [1, 2, 3])
@pytest.mark.parametrize(
    ("algorithm_type", "final_sigmas_type"),
    [("dpmsolver++", "zero"), ("dpmsolver++", "sigma_min"), ("dpmsolver", "sigma_min")],
)
def test_dpm_solver(algorithm_type, final_sigmas_type, solver_order):
    settings = {
        "algorithm_type": algorithm_type,
        "final_sigmas_type": final_sigmas_type,
        "solver_order": solver_order,
    }
    for steps, spacing in [(4, "leading"), (20, "linspace")]:
        settings["timestep_spacing"] = spacing
        assert_same(dpm(**settings, prediction_type="v_prediction"), steps)
    assert_same(dpm(**settings, prediction_type="epsilon"), 20)


@pytest.mark.parametrize("algorithm_type", ["dpmsolver++", "dpmsolver"])
@pytest.mark.parametrize(
    "settings",
    [
        {"solver_type": "heun"},
        {"solver_type": "heun", "solver_order": 3},
        {"lower_order_final": False, "solver_order": 3},
        {"euler_at_final": True, "solver_order": 3},
        {"timestep_spacing": "leading", "steps_offset": 1},
    ],
    ids=str,
)
def test_settings_of_dpm_solver(settings, algorithm_type):
    theirs_ = dpm(
        algorithm_type=algorithm_type,
        final_sigmas_type="sigma_min",
        **{"prediction_type": "v_prediction", "timestep_spacing": "trailing", **settings},
    )
    for steps in (4, 20):
        assert_same(theirs_, steps)


def test_a_last_step_of_no_length():
    # As many "trailing" steps as timesteps: the last starts at t = 0, where "sigma_min" ends.
    settings = {"num_train_timesteps": 20, "timestep_spacing": "trailing"}
    assert_same(dpm(**settings, final_sigmas_type="sigma_min"), 20)

"""Schedules, timesteps and whole trajectories against PyTorch diffusers' schedulers."""

import sys
import unittest.mock
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.diffusion.guidance import GuidedCondition  # noqa: E402
from codi_jax.diffusion.sampler import initial_noise, sample, step_infos  # noqa: E402
from codi_jax.diffusion.sampler_config import SamplerConfig  # noqa: E402
from codi_jax.diffusion.schedules import (  # noqa: E402
    BETA_SCHEDULES,
    DiscreteSchedule,
    schedule_from_config,
)
from codi_jax.diffusion.solvers import singlestep_orders  # noqa: E402
from codi_jax.diffusion.timesteps import (  # noqa: E402
    TIMESTEP_SPACINGS,
    consistency_timesteps,
    inference_timesteps,
)
from codi_jax.typing import UserError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

N = 1000
STEPS = (1, 2, 4, 10, 20, 50)
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KEY = jax.random.key(7)
Z_T = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)


def scheduler(name, **settings):
    """A diffusers scheduler with Stable Diffusion's betas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "dpmsolver" is deprecated there
        return getattr(diffusers, name)(**{**SD_BETAS, **settings})


def dpm(**settings):
    return scheduler("DPMSolverMultistepScheduler", **settings)


def ddim(**settings):
    return scheduler("DDIMScheduler", **{"clip_sample": False, **settings})


def network(xp, z, t):
    """A smooth function of the latents and the time, as a network would be; any output."""
    tau = t / N
    return 0.8 * z * tau + 0.4 * xp.sin(2 * z + 3 * tau)


def predict(params, z_t, t, cond):
    return network(jnp, z_t, t.astype(jnp.float32)[:, None, None, None])


def config_of(theirs_):
    """What diffusers would save."""
    return dict(theirs_.config, _class_name=type(theirs_).__name__)


def theirs(theirs_, steps):
    """The latents that a diffusers scheduler ends with."""
    theirs_.set_timesteps(steps)
    z = torch.from_numpy(Z_T)
    if hasattr(theirs_, "state_in_first_order") or "Euler" in type(theirs_).__name__:
        # These two hold z / alpha. (Their init_noise_sigma, for "trailing" and "linspace", is
        # sigma / alpha instead of 1 / alpha: 0.998 of it.)
        z = z * (theirs_.sigmas.max() ** 2 + 1) ** 0.5
    noise = iter(step_noise(steps))
    with unittest.mock.patch.multiple(
        sys.modules[type(theirs_).__module__],
        randn_tensor=lambda *args, **kwargs: torch.from_numpy(next(noise)),
        create=True,
    ):
        for t in theirs_.timesteps:
            output = network(np, theirs_.scale_model_input(z, t).numpy(), np.float32(t))
            z = theirs_.step(torch.from_numpy(output), t, z).prev_sample
    return z.numpy()


def step_noise(steps):
    """What our stochastic solvers draw."""
    return [np.array(initial_noise(key, Z_T.shape)) for key in jax.random.split(KEY, steps)]


def ours(theirs_, steps, schedule=None):
    """The latents of our sampler with the settings of a diffusers scheduler."""
    config = config_of(theirs_)
    return sample(
        predict,
        {},
        schedule or schedule_from_config(config),
        config["prediction_type"],
        jnp.asarray(Z_T),
        GuidedCondition(),
        num_inference_steps=steps,
        sampler=SamplerConfig.from_config(config),
        key=KEY,
    )


def assert_same(theirs_, steps, tolerance=1e-4):
    expected = theirs(theirs_, steps)
    # Predicting eps divides by alpha (0.07 at the first step): latents reach 10 and more.
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(ours(theirs_, steps), expected, atol=tolerance * scale, rtol=0)


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

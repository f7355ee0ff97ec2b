"""Noise schedules against formulas coded here in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.schedules import (
    BETA_SCHEDULES,
    ContinuousSchedule,
    DiscreteSchedule,
    add_noise,
    expand,
    schedule_from_config,
)
from codi_jax.typing import UserError

N = 1000
DISCRETE = [
    DiscreteSchedule(beta_schedule=name, rescale_betas_zero_snr=rescale)
    for name in BETA_SCHEDULES
    for rescale in (False, True)
]
ALL = [*DISCRETE, ContinuousSchedule(), ContinuousSchedule(log_snr_min=-10.0)]


def levels(schedule):
    """alpha and sigma at t = -1 ... N - 1 as float64."""
    alpha, sigma = schedule.alpha_sigma(jnp.arange(-1, N))
    assert alpha.dtype == sigma.dtype == jnp.float32
    return np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)


def log_alphas_cumprod(name):
    """Sum of log(1 - beta), written beta by beta."""
    total, result = 0.0, []
    for i in range(N):
        if name == "linear":
            beta = 0.00085 + (0.012 - 0.00085) * i / (N - 1)
        elif name == "scaled_linear":
            beta = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / (N - 1)) ** 2
        else:
            numerator, denominator = (
                np.cos((u / N + 0.008) / 1.008 * np.pi / 2) ** 2 for u in (i + 1, i)
            )
            beta = min(1 - numerator / denominator, 0.999)
        total += np.log1p(-beta)
        result.append(total)
    return np.array(result)


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_discrete_schedule_equals_the_product_of_betas(name):
    alpha, sigma = levels(DiscreteSchedule(beta_schedule=name))
    log_abar = log_alphas_cumprod(name)
    np.testing.assert_allclose(alpha[1:], np.exp(log_abar / 2), rtol=2e-7)
    # -expm1 is accurate where alpha is close to 1; so must the table be.
    np.testing.assert_allclose(sigma[1:], np.sqrt(-np.expm1(log_abar)), rtol=2e-7)


def test_stable_diffusion_known_values():
    alpha, sigma = levels(DiscreteSchedule())
    assert alpha[-1] ** 2 == pytest.approx(0.00466, abs=5e-6)
    assert sigma[1] ** 2 == pytest.approx(0.00085, rel=1e-6)


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_zero_terminal_snr(name):
    plain, _ = levels(DiscreteSchedule(beta_schedule=name))
    alpha, sigma = levels(DiscreteSchedule(beta_schedule=name, rescale_betas_zero_snr=True))
    assert alpha[-1] == 0.0 and sigma[-1] == 1.0
    assert alpha[1] == pytest.approx(plain[1], rel=2e-7)  # the first level is kept
    # In between alpha is an affine map of the plain one.
    scale = plain[1] / (plain[1] - plain[-1])
    np.testing.assert_allclose(alpha[1:], (plain[1:] - plain[-1]) * scale, atol=3e-7)


@pytest.mark.parametrize("log_snr_min", [-15.0, -8.0])
def test_continuous_schedule_is_linear_in_the_angle(log_snr_min):
    schedule = ContinuousSchedule(log_snr_min=log_snr_min)
    t = np.linspace(-1, N - 1, 700)  # real times, off the grid too
    alpha, sigma = schedule.alpha_sigma(jnp.asarray(t, jnp.float32))
    phi = np.arctan(np.exp(-log_snr_min / 2)) * (t + 1) / N
    np.testing.assert_allclose(alpha, np.cos(phi), atol=2e-7)
    np.testing.assert_allclose(sigma, np.sin(phi), atol=2e-7)
    last = 2 * (np.log(np.float64(alpha[-1])) - np.log(np.float64(sigma[-1])))
    assert last == pytest.approx(log_snr_min, abs=1e-5)


def test_continuous_schedule_agrees_on_integer_and_float_times():
    schedule, t = ContinuousSchedule(), jnp.arange(-1, N)
    for a, b in zip(
        schedule.alpha_sigma(t), schedule.alpha_sigma(t.astype(jnp.float32)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_levels_are_variance_preserving_monotone_and_clean_at_minus_one(schedule):
    alpha, sigma = levels(schedule)
    assert alpha[0] == 1.0 and sigma[0] == 0.0
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=3e-7)
    assert np.all(np.diff(alpha / np.maximum(sigma, 1e-9)) < 0)
    assert schedule.zero_terminal_snr == (alpha[-1] == 0.0)


def test_shapes_follow_t_and_times_off_the_grid_are_nan():
    schedule = DiscreteSchedule()
    assert schedule.alpha_sigma(jnp.int32(3))[0].shape == ()
    assert schedule.alpha_sigma(jnp.zeros((2, 3), jnp.int32))[1].shape == (2, 3)
    assert np.isnan(schedule.alpha_sigma(jnp.array([-2, N]))[0]).all()


def test_sample_t_covers_dt_to_the_last_timestep():
    t = DiscreteSchedule(num_train_timesteps=6).sample_t(jax.random.key(0), (1000,), 2)
    assert t.dtype == jnp.int32
    values, counts = np.unique(t, return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert counts.min() > 180  # 250 expected each; 180 is five standard deviations away

    t = ContinuousSchedule(num_train_timesteps=6).sample_t(jax.random.key(0), (1000,), 2)
    assert t.dtype == jnp.float32
    assert 2.0 <= t.min() < 2.05 and 4.95 < t.max() <= 5.0
    assert np.mean(t) == pytest.approx(3.5, abs=0.15)


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_config_round_trip(schedule):
    config = schedule.to_config("v_prediction")
    assert config["prediction_type"] == "v_prediction"
    assert "prediction_type" not in schedule.to_config()
    assert schedule_from_config(config) == schedule


def test_config_is_a_diffusers_ddim_scheduler():
    config = DiscreteSchedule().to_config("epsilon")
    assert config == {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "trained_betas": None,
        "rescale_betas_zero_snr": False,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "clip_sample": False,
    }
    assert ContinuousSchedule().to_config()["_class_name"] == "ContinuousSchedule"


def test_configs_of_checkpoints():
    pndm = {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
        "clip_sample": False,
    }
    assert schedule_from_config(pndm) == DiscreteSchedule()
    with pytest.raises(UserError, match="'sigmoid'.*scaled_linear, linear, squaredcos_cap_v2"):
        schedule_from_config(pndm | {"beta_schedule": "sigmoid"})
    with pytest.raises(UserError, match="trained_betas"):
        schedule_from_config(pndm | {"trained_betas": [0.1, 0.2]})
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler.*beta_schedule"):
        schedule_from_config(flow)
    with pytest.raises(UserError, match="log_snr_min"):
        schedule_from_config({"_class_name": "ContinuousSchedule", "num_train_timesteps": 1000})


def test_bad_values_are_refused():
    with pytest.raises(UserError, match="num_train_timesteps=1"):
        DiscreteSchedule(num_train_timesteps=1)
    with pytest.raises(UserError, match="beta_start=0.5"):
        DiscreteSchedule(beta_start=0.5)
    with pytest.raises(UserError, match="log_snr_min=3.0"):
        ContinuousSchedule(log_snr_min=3.0)


def test_expand_and_add_noise():
    rng = np.random.default_rng(0)
    x, eps = rng.standard_normal((2, 3, 2, 4, 1)).astype(np.float32)
    t = np.array([-1, 10, 999])
    z_t = add_noise(DiscreteSchedule(), jnp.asarray(x), jnp.asarray(eps), jnp.asarray(t))
    np.testing.assert_array_equal(z_t[0], x[0])  # t = -1 is clean
    log_abar = log_alphas_cumprod("scaled_linear")[t[1:]][:, None, None, None]
    expected = np.exp(log_abar / 2) * x[1:] + np.sqrt(-np.expm1(log_abar)) * eps[1:]
    np.testing.assert_allclose(z_t[1:], expected, rtol=1e-5, atol=1e-6)
    assert expand(jnp.ones(3), jnp.asarray(x)).shape == (3, 1, 1, 1)
    assert expand(jnp.ones((3, 1, 1, 1)), jnp.asarray(x)).shape == (3, 1, 1, 1)
    assert expand(0.5, jnp.asarray(x)).shape == (1, 1, 1, 1)

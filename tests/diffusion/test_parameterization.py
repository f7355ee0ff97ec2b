"""Conversions between v, eps and x at every level of every schedule."""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.parameterization import (
    PREDICTION_TYPES,
    check_prediction_type,
    from_x_eps,
    to_x_eps,
)
from codi_jax.diffusion.schedules import (
    BETA_SCHEDULES,
    ContinuousSchedule,
    DiscreteSchedule,
    add_noise,
)
from codi_jax.typing import UserError

SCHEDULES = [
    *(DiscreteSchedule(beta_schedule=name) for name in BETA_SCHEDULES),
    DiscreteSchedule(rescale_betas_zero_snr=True),
    ContinuousSchedule(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_round_trip_at_every_timestep(schedule, prediction_type):
    if prediction_type == "epsilon" and schedule.zero_terminal_snr:
        with pytest.raises(UserError, match="rescale_betas_zero_snr"):
            check_prediction_type(schedule, prediction_type)
        return
    check_prediction_type(schedule, prediction_type)
    rng = np.random.default_rng(0)
    x, eps = (jnp.asarray(rng.standard_normal((1000, 2, 3)), jnp.float32) for _ in range(2))
    t = jnp.arange(1000)
    alpha, sigma = schedule.alpha_sigma(t)
    z_t = add_noise(schedule, x, eps, t)
    output = from_x_eps(prediction_type, x, eps, alpha, sigma)
    x_hat, eps_hat = to_x_eps(prediction_type, output, z_t, alpha, sigma)
    # Dividing by alpha or sigma amplifies the float32 rounding of z_t, and nothing else may.
    noise = 2e-6
    x_error = np.abs(x_hat - x).max(axis=(1, 2))
    eps_error = np.abs(eps_hat - eps).max(axis=(1, 2))
    x_gain = 1 / np.asarray(alpha) if prediction_type == "epsilon" else 1.0
    eps_gain = 1 / np.asarray(sigma) if prediction_type == "sample" else 1.0
    assert np.all(x_error < noise * x_gain)
    assert np.all(eps_error < noise * eps_gain)


def test_outputs_are_what_their_names_say():
    x, eps = jnp.full((1, 2), 3.0), jnp.full((1, 2), 5.0)
    alpha, sigma = jnp.float32(0.6), jnp.float32(0.8)
    expected = {"v_prediction": 0.6 * 5 - 0.8 * 3, "epsilon": 5.0, "sample": 3.0}
    for name in PREDICTION_TYPES:
        np.testing.assert_allclose(from_x_eps(name, x, eps, alpha, sigma), expected[name], 1e-6)


def test_expanded_and_per_batch_levels_give_the_same():
    rng = np.random.default_rng(1)
    output, z_t = (jnp.asarray(rng.standard_normal((3, 2, 2, 4)), jnp.float32) for _ in range(2))
    alpha, sigma = DiscreteSchedule().alpha_sigma(jnp.array([5, 400, 999]))
    wide = (alpha[:, None, None, None], sigma[:, None, None, None])
    for name in PREDICTION_TYPES:
        narrow = to_x_eps(name, output, z_t, alpha, sigma)
        given_wide = to_x_eps(name, output, z_t, *wide)
        np.testing.assert_allclose(narrow, given_wide, rtol=1e-6, atol=1e-6)
        for i in range(3):  # each sample is converted with its own level
            one = to_x_eps(name, output[i], z_t[i], alpha[i], sigma[i])
            np.testing.assert_allclose(narrow[0][i], one[0], rtol=1e-6, atol=1e-6)


def test_unknown_prediction_type_lists_the_choices():
    one = jnp.ones((1, 1))
    for call in (
        lambda: check_prediction_type(DiscreteSchedule(), "flow"),
        lambda: to_x_eps("flow", one, one, 0.6, 0.8),
        lambda: from_x_eps("flow", one, one, 0.6, 0.8),
    ):
        with pytest.raises(UserError, match="'flow'.*v_prediction, epsilon, sample"):
            call()

"""The sampler on Gaussian data, whose denoiser and ODE are exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.parameterization import PREDICTION_TYPES, from_x_eps
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import ContinuousSchedule, DiscreteSchedule, expand
from codi_jax.diffusion.solvers import SOLVERS
from codi_jax.diffusion.timesteps import inference_timesteps
from codi_jax.typing import UserError

MEAN = np.array([0.5, -1.0, 2.0, 0.0], np.float32)  # by channel
STD = np.array([0.3, 1.0, 2.0, 0.7], np.float32)
SHAPE = (3, 2, 2, 4)
NOTHING = GuidedCondition()


def exact_denoiser(z, alpha, sigma):
    """E[x | z_t] for x ~ N(MEAN, STD^2)."""
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (z - alpha * MEAN)


def exact_ode(z, alpha_t, sigma_t, alpha_s, sigma_s):
    """The solution of the PF-ODE at s that passes through z at t."""
    ratio = (alpha_s**2 * STD**2 + sigma_s**2) / (alpha_t**2 * STD**2 + sigma_t**2)
    return alpha_s * MEAN + np.sqrt(ratio) * (z - alpha_t * MEAN)


def gaussian_predict(schedule, prediction_type):
    def predict(params, z_t, t, cond):
        assert t.shape == z_t.shape[:1]
        alpha, sigma = (expand(a, z_t) for a in schedule.alpha_sigma(t))
        x_hat = exact_denoiser(z_t, alpha, sigma)
        eps_hat = (z_t - alpha * x_hat) / sigma
        return from_x_eps(prediction_type, x_hat, eps_hat, alpha, sigma)

    return predict


def level(schedule, t):
    return tuple(np.float64(a) for a in schedule.alpha_sigma(jnp.int32(t)))


def noise():
    return initial_noise(jax.random.key(3), SHAPE)


@pytest.mark.parametrize("schedule", [DiscreteSchedule(), ContinuousSchedule()], ids=str)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_one_step_is_the_denoiser_at_the_last_timestep(schedule, prediction_type):
    z_T = noise()
    x = sample(
        gaussian_predict(schedule, prediction_type),
        {},
        schedule,
        prediction_type,
        z_T,
        NOTHING,
        num_inference_steps=1,
    )
    alpha, sigma = level(schedule, 999)
    # Predicting eps divides rounding errors by alpha: 5.5e-4 in the continuous schedule.
    tolerance = 1e-6 / alpha if prediction_type == "epsilon" else 1e-5
    np.testing.assert_allclose(x, exact_denoiser(np.float64(z_T), alpha, sigma), atol=tolerance)


def test_ddim_converges_to_the_exact_map_at_first_order():
    schedule = ContinuousSchedule()
    predict, z_T = gaussian_predict(schedule, "v_prediction"), noise()
    exact = exact_ode(np.float64(z_T), *level(schedule, 999), 1.0, 0.0)
    run = functools.partial(sample, predict, {}, schedule, "v_prediction", z_T, NOTHING)
    errors = [
        np.abs(run(num_inference_steps=steps) - exact).max(axis=(0, 1, 2))
        for steps in (50, 100, 200)
    ]
    # Halving the step halves the error, in every channel.
    for coarse, fine in zip(errors, errors[1:], strict=False):
        np.testing.assert_allclose(coarse / fine, 2.0, rtol=0.1)
    assert errors[-1].max() < 0.05
    # The others' orders are measured in test_solvers; here they are just far better.
    for solver in ("dpmsolver", "dpmsolver++"):
        x = run(num_inference_steps=50, sampler=SamplerConfig(solver=solver))
        assert np.abs(x - exact).max() < errors[0].max() / 4


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"consistency"}))
def test_many_steps_give_the_mean_and_the_variance_of_the_data(solver):
    schedule = DiscreteSchedule(rescale_betas_zero_snr=True)
    x = sample(
        gaussian_predict(schedule, "v_prediction"),
        {},
        schedule,
        "v_prediction",
        initial_noise(jax.random.key(5), (4000, 1, 1, 4)),
        NOTHING,
        num_inference_steps=200,
        sampler=SamplerConfig(solver=solver),
        key=jax.random.key(6),
    )
    # 4000 draws: five standard deviations of the mean are 0.08 STD, of the deviation 0.056.
    np.testing.assert_allclose((np.mean(x, axis=(0, 1, 2)) - MEAN) / STD, 0, atol=0.08)
    np.testing.assert_allclose(np.std(x, axis=(0, 1, 2)) / STD, 1, atol=0.056)


@pytest.mark.parametrize("solver", ["dpmsolver", "dpmsolver++"])
def test_few_steps_from_zero_terminal_snr(solver):
    schedule, z_T = DiscreteSchedule(rescale_betas_zero_snr=True), noise()
    predict = gaussian_predict(schedule, "v_prediction")
    run = functools.partial(sample, predict, {}, schedule, "v_prediction", z_T, NOTHING)
    for steps in (1, 2, 3):
        ddim = run(num_inference_steps=steps)
        x = run(num_inference_steps=steps, sampler=SamplerConfig(solver=solver, solver_order=3))
        assert x.dtype == jnp.float32 and np.isfinite(x).all()
        # The first step has no history and the last may not use it: at most DDIM up to two.
        apart = np.abs(x - ddim).max()
        assert apart < 1e-5 if steps <= 2 else apart > 1e-3


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_sample_equals_a_plain_loop(spacing):
    schedule = DiscreteSchedule(rescale_betas_zero_snr=True)
    predict, z = gaussian_predict(schedule, "v_prediction"), noise()
    result = sample(
        predict,
        {},
        schedule,
        "v_prediction",
        z,
        NOTHING,
        num_inference_steps=5,
        sampler=SamplerConfig(timestep_spacing=spacing),
    )
    z = np.float64(z)
    times = inference_timesteps(1000, 5, spacing).tolist()
    for t, s in zip(times, [*times[1:], -1], strict=True):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(schedule, t), level(schedule, s)
        x_hat = exact_denoiser(z, alpha_t, sigma_t)
        z = alpha_s * x_hat + sigma_s * (z - alpha_t * x_hat) / sigma_t
    np.testing.assert_allclose(result, z, rtol=1e-4, atol=1e-5)


def test_jit_equals_eager_and_the_loop_is_one_scan():
    schedule, z_T = DiscreteSchedule(), noise()
    calls = []

    def predict(params, z_t, t, cond):
        calls.append(t.dtype)
        return gaussian_predict(schedule, "epsilon")(params, z_t, t, cond)

    sampler = SamplerConfig(solver="dpmsolver++", solver_order=3)
    run = functools.partial(sample, predict, {}, schedule, "epsilon", sampler=sampler)
    jitted = jax.jit(run, static_argnames="num_inference_steps")
    result = jitted(z_T, NOTHING, num_inference_steps=20)
    assert len(calls) < 20 and set(calls) == {jnp.dtype(jnp.int32)}
    np.testing.assert_allclose(
        result, run(z_T, NOTHING, num_inference_steps=20), rtol=1e-4, atol=1e-4
    )


def test_initial_noise_is_a_function_of_the_key():
    key, other = jax.random.key(0), jax.random.key(1)
    a = initial_noise(key, (64, 64))
    assert a.dtype == jnp.float32
    np.testing.assert_array_equal(a, initial_noise(key, (64, 64)))
    assert not np.array_equal(a, initial_noise(other, (64, 64)))
    assert np.std(a) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("steps", [1, 3])
def test_consistency_sampler_gives_the_mean_and_the_variance_of_the_data(steps):
    schedule = DiscreteSchedule(rescale_betas_zero_snr=True)

    def predict(params, z_t, t, cond):
        """The exact consistency function; the boundary scalings are 0 and 1 at these times."""
        alpha, sigma = (expand(a, z_t) for a in schedule.alpha_sigma(t))
        return MEAN + STD * (z_t - alpha * MEAN) / jnp.sqrt(alpha**2 * STD**2 + sigma**2)

    z_T = initial_noise(jax.random.key(5), (4000, 1, 1, 4))
    sampler = SamplerConfig(solver="consistency")
    run = functools.partial(
        sample, predict, {}, schedule, "sample", z_T, NOTHING, num_inference_steps=steps
    )
    x = run(sampler=sampler, key=jax.random.key(6))
    np.testing.assert_allclose((np.mean(x, axis=(0, 1, 2)) - MEAN) / STD, 0, atol=0.08)
    np.testing.assert_allclose(np.std(x, axis=(0, 1, 2)) / STD, 1, atol=0.056)
    again, other = (run(sampler=sampler, key=jax.random.key(i)) for i in (6, 7))
    np.testing.assert_array_equal(x, again)
    assert np.array_equal(x, other) == (steps == 1)  # the one step adds no noise
    with pytest.raises(UserError, match="'consistency' draws noise: give a key"):
        run(sampler=sampler)


def test_clip_sample_range_clips_the_signal_prediction():
    schedule, z_T = DiscreteSchedule(), noise()
    run = functools.partial(
        sample, lambda params, z_t, t, cond: 10 * z_t, {}, schedule, "sample", z_T, NOTHING
    )
    assert np.abs(run(num_inference_steps=2)).max() > 1.0
    clipped = run(num_inference_steps=1, sampler=SamplerConfig(clip_sample_range=0.25))
    np.testing.assert_allclose(clipped, np.clip(10 * z_T, -0.25, 0.25), rtol=1e-6)


def test_sampler_refuses_what_cannot_work():
    run = functools.partial(
        sample,
        lambda params, z_t, t, cond: z_t,
        {},
        z_T=noise(),
        condition=NOTHING,
        num_inference_steps=2,
    )
    with pytest.raises(UserError, match="zero terminal SNR"):
        run(DiscreteSchedule(rescale_betas_zero_snr=True), "epsilon")


def test_noise_of_an_image_with_its_own_key_does_not_depend_on_the_batch():
    keys = jax.random.split(jax.random.key(0), 3)
    noise = initial_noise(keys, SHAPE)
    assert noise.shape == SHAPE
    np.testing.assert_allclose(noise[1], initial_noise(keys[1], SHAPE[1:]), rtol=1e-5)
    assert not np.array_equal(noise[0], noise[1])


def test_a_stochastic_sample_with_its_own_key_does_not_depend_on_the_batch():
    schedule = DiscreteSchedule()
    keys = jax.random.split(jax.random.key(0), 3)
    z_T = initial_noise(keys, (3, 2, 2, 4))

    def run(z_T, keys):
        return sample(
            gaussian_predict(schedule, "v_prediction"),
            {},
            schedule,
            "v_prediction",
            z_T,
            GuidedCondition(),
            num_inference_steps=4,
            sampler=SamplerConfig(solver="sde-dpmsolver++"),
            key=keys,
        )

    together = run(z_T, keys)
    np.testing.assert_allclose(together[1:2], run(z_T[1:2], keys[1:2]), rtol=1e-5, atol=1e-6)
    assert not np.allclose(together, run(z_T, jax.random.split(jax.random.key(1), 3)))

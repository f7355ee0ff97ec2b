"""z_s predictors against closed forms, distances by hand, and the paper's Remark 1."""

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.schedules import ContinuousSchedule, DiscreteSchedule
from codi_jax.distill.distances import distance
from codi_jax.distill.predictors import PREDICTORS, predict_z_s
from codi_jax.typing import UserError

MEAN, STD = np.array([0.5, -1.0, 2.0]), np.array([0.3, 1.0, 2.0])


def exact_denoiser(z, alpha, sigma):
    """E[x | z_t] for x ~ N(MEAN, STD^2)."""
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (z - alpha * MEAN)


def gaussian_case(schedule, t, s, batch=5):
    """Inputs of `predict_z_s` in float64: exact predictions on noisy samples."""
    rng = np.random.default_rng(7)
    x, eps = MEAN + STD * rng.standard_normal((batch, 3)), rng.standard_normal((batch, 3))
    levels = [np.float64(a) for u in (t, s) for a in schedule.alpha_sigma(jnp.full(batch, u))]
    alpha_t, sigma_t, alpha_s, sigma_s = (a[:, None] for a in levels)
    z_t = alpha_t * x + sigma_t * eps
    x_hat = exact_denoiser(z_t, alpha_t, sigma_t)
    return {
        "z_t": z_t,
        "eps": eps,
        "x_hat_t": x_hat,
        "eps_hat_t": (z_t - alpha_t * x_hat) / sigma_t,
        "alpha_t": alpha_t,
        "sigma_t": sigma_t,
        "alpha_s": alpha_s,
        "sigma_s": sigma_s,
    }


def run(name, case, **kwargs):
    return predict_z_s(name, **{k: jnp.asarray(v, jnp.float32) for k, v in case.items()}, **kwargs)


@pytest.mark.parametrize("schedule", [DiscreteSchedule(), ContinuousSchedule()], ids=str)
@pytest.mark.parametrize(("t", "s"), [(999, 998), (500, 450), (20, 0)])
def test_prev_and_ddim_v_on_gaussian_data(schedule, t, s):
    c = gaussian_case(schedule, t, s)
    # E[x | z_t] written through the posterior precision, a form of its own.
    precision = 1 / STD**2 + c["alpha_t"] ** 2 / c["sigma_t"] ** 2
    x_hat = (MEAN / STD**2 + c["alpha_t"] * c["z_t"] / c["sigma_t"] ** 2) / precision
    prev = c["alpha_s"] * x_hat + c["sigma_s"] * c["eps"]
    np.testing.assert_allclose(run("prev", c), prev, rtol=1e-4, atol=1e-5)
    ddim = c["alpha_s"] * x_hat + c["sigma_s"] * (c["z_t"] - c["alpha_t"] * x_hat) / c["sigma_t"]
    np.testing.assert_allclose(run("ddim_v", c), ddim, rtol=1e-4, atol=1e-5)


def test_ddim_reads_the_teacher_alone():
    c = gaussian_case(DiscreteSchedule(), 500, 450)
    # Wrong on purpose: "ddim" must look neither at the online network nor at the noise.
    wrong = c | {"x_hat_t": np.full((5, 3), 9.0), "eps_hat_t": np.full((5, 3), 8.0)}
    wrong["eps"] = np.full((5, 3), 7.0)
    teacher = tuple(jnp.asarray(c[k], jnp.float32) for k in ("x_hat_t", "eps_hat_t"))
    result = run("ddim", wrong, teacher_x_eps=teacher)
    eq_6 = (
        c["alpha_s"] * c["x_hat_t"]
        + c["sigma_s"] * (c["z_t"] - c["alpha_t"] * c["x_hat_t"]) / c["sigma_t"]
    )
    np.testing.assert_allclose(result, eq_6, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="pass teacher"):
        run("ddim", c)


@pytest.mark.parametrize(("t", "s"), [(900, 899), (500, 450), (100, 40)])
def test_euler_is_the_euler_step_of_equation_5(t, s):
    # In the continuous schedule the angle is linear in t, so f, g^2 and the step are explicit.
    schedule = ContinuousSchedule(log_snr_min=-8.0)
    c = gaussian_case(schedule, t, s)
    rate = np.arctan(np.exp(4.0)) / 1000  # d phi / dt
    phi = rate * (t + 1)
    f = -np.tan(phi) * rate  # d log(alpha) / dt
    g2 = 2 * np.sin(phi) * np.cos(phi) * rate - 2 * f * np.sin(phi) ** 2
    variance = np.cos(phi) ** 2 * STD**2 + np.sin(phi) ** 2
    score = -(c["z_t"] - np.cos(phi) * MEAN) / variance  # of the exact marginal
    expected = c["z_t"] + (s - t) * (f * c["z_t"] - 0.5 * g2 * score)
    np.testing.assert_allclose(run("euler", c), expected, rtol=1e-4, atol=2e-5)


def test_euler_approaches_ddim_at_second_order_in_the_step():
    schedule = DiscreteSchedule()
    gaps = []
    for dt in (200, 100, 50):
        c = gaussian_case(schedule, 600, 600 - dt)
        angle = np.arctan2(c["sigma_s"], c["alpha_s"]) - np.arctan2(c["sigma_t"], c["alpha_t"])
        gap = np.abs(np.asarray(run("euler", c)) - np.asarray(run("ddim_v", c))).max()
        gaps.append(gap / angle[0, 0] ** 2)
    # gap / angle^2 tends to a constant: neither to zero nor to infinity.
    assert gaps[0] > 0.1
    np.testing.assert_allclose(gaps, gaps[-1], rtol=0.25)


def test_euler_is_finite_at_zero_terminal_snr():
    c = gaussian_case(DiscreteSchedule(rescale_betas_zero_snr=True), 999, 979)
    assert np.isfinite(run("euler", c)).all()


def test_unknown_predictor_lists_the_choices():
    with pytest.raises(UserError, match="'heun'.*" + ", ".join(PREDICTORS)):
        run("heun", gaussian_case(DiscreteSchedule(), 10, 9))


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_distances(scale):
    rng = np.random.default_rng(0)
    a, b = (scale * rng.standard_normal((3, 2, 4, 5)) for _ in range(2))
    d = 2 * 4 * 5
    c = 0.00054 * d**0.5
    norm2 = ((a - b) ** 2).sum(axis=(1, 2, 3))
    expected = {
        "l2": norm2 / d,
        "l1": np.abs(a - b).sum(axis=(1, 2, 3)) / d,
        "huber": (np.sqrt(norm2 + c**2) - c) / d**0.5,
    }
    for name, value in expected.items():
        result = distance(name, jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
        assert result.shape == (3,) and result.dtype == jnp.float32
        np.testing.assert_allclose(result, value, rtol=1e-5)
    with pytest.raises(UserError, match="'lpips'.*l2, l1, huber"):
        distance("lpips", jnp.ones((1, 1)), jnp.ones((1, 1)))


# Remark 1: self-consistency in eps implies self-consistency in x (and the reverse), for a model
# along the trajectories of its *own* PF-ODE, dz/dphi = alpha eps_hat - sigma x_hat.


def signal_of(noise):
    """A nonlinear, increasing map from noise to data."""
    return 0.5 + 2.0 * noise + np.tanh(noise)


def consistent_noise(z, phi):
    """eps_hat(z, t): the e that solves cos(phi) signal_of(e) + sin(phi) e = z (bisection)."""
    low, high = np.full_like(z, -50.0), np.full_like(z, 50.0)
    for _ in range(100):
        middle = (low + high) / 2
        too_high = np.cos(phi) * signal_of(middle) + np.sin(phi) * middle > z
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return (low + high) / 2


def consistent_model(z, phi):
    """A model known by its eps_hat; x_hat follows from z_t = alpha x_hat + sigma eps_hat."""
    eps_hat = consistent_noise(z, phi)
    return (z - np.sin(phi) * eps_hat) / np.cos(phi), eps_hat


def denoiser_model(z, phi):
    """The exact denoiser of bimodal data, x = +-1 with variance 0.1: not self-consistent."""
    alpha, sigma = np.cos(phi), np.sin(phi)
    variance = alpha**2 * 0.1 + sigma**2
    mean = np.tanh(alpha * z / variance)
    x_hat = mean + alpha * 0.1 / variance * (z - alpha * mean)
    return x_hat, (z - alpha * x_hat) / sigma


def own_trajectory(model, z, phis):
    """RK4 solution of the model's PF-ODE, [len(phis), ...]."""

    def velocity(z, phi):
        x_hat, eps_hat = model(z, phi)
        return np.cos(phi) * eps_hat - np.sin(phi) * x_hat

    path = [z]
    for phi, following in zip(phis, phis[1:], strict=False):
        h = following - phi
        k1 = velocity(z, phi)
        k2 = velocity(z + h / 2 * k1, phi + h / 2)
        k3 = velocity(z + h / 2 * k2, phi + h / 2)
        k4 = velocity(z + h * k3, following)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(z)
    return np.stack(path)


PHIS = np.linspace(1.5, 0.1, 141)


def predictions_along(model, path):
    pairs = [model(z, phi) for z, phi in zip(path, PHIS, strict=True)]
    return np.stack([x for x, _ in pairs]), np.stack([e for _, e in pairs])


def spread(values):
    return np.ptp(values, axis=0).max()


def test_remark_1_consistency_in_eps_is_consistency_in_x():
    start = np.linspace(-2.0, 2.0, 9)
    path = own_trajectory(consistent_model, start, PHIS)
    x_hat, eps_hat = predictions_along(consistent_model, path)
    assert spread(path) > 1.0  # the trajectory does go somewhere
    assert spread(eps_hat) < 1e-5  # self-consistent in eps ...
    assert spread(x_hat) < 1e-5  # ... and therefore in x


def test_remark_1_changes_of_the_two_predictions_are_tied_along_the_own_trajectory():
    # The reason: differentiate z = alpha x_hat + sigma eps_hat along dz/dphi = v_hat, and
    # alpha dx_hat + sigma deps_hat = 0 is left. So one vanishes exactly when the other does.
    start = np.linspace(-2.0, 2.0, 9)
    path = own_trajectory(denoiser_model, start, PHIS)
    x_hat, eps_hat = predictions_along(denoiser_model, path)
    assert spread(x_hat) > 0.3 and spread(eps_hat) > 0.3  # not self-consistent at all
    dx, deps = (np.gradient(values, PHIS, axis=0, edge_order=2) for values in (x_hat, eps_hat))
    residual = np.cos(PHIS)[:, None] * dx + np.sin(PHIS)[:, None] * deps
    assert np.abs(residual).max() < 0.01 * np.abs(np.sin(PHIS)[:, None] * deps).max()


def test_remark_1_does_not_extend_to_the_trajectories_of_another_model():
    # The consistency function in x of a Gaussian prior, on the prior's (curved) trajectories:
    # x_hat is constant there, eps_hat = (z - alpha x_hat) / sigma is not.
    noise, std = np.linspace(-2.0, 2.0, 9), 0.5
    alpha, sigma = np.cos(PHIS)[:, None], np.sin(PHIS)[:, None]
    path = np.sqrt(alpha**2 * std**2 + sigma**2) * noise
    eps_hat = (path - alpha * std * noise) / sigma
    assert spread(eps_hat) > 0.3

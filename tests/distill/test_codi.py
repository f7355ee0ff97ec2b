"""The CoDi loss against computations by hand, and what has a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.parameterization import from_x_eps
from codi_jax.diffusion.schedules import ContinuousSchedule, DiscreteSchedule, expand
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.finetune import DiffusionLoss
from codi_jax.typing import UserError
from tests.distill.toy import (
    PARAMS,
    SCHEDULE,
    TARGET,
    Recorder,
    convert,
    levels,
    make_batch,
    mean_square,
    network,
    predict_numpy,
    run,
)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize(
    ("predictor", "dt", "time_per", "space"),
    [
        ("prev", 1, "batch", "eps"),
        ("ddim_v", 20, "sample", "x"),
        ("ddim", 50, "sample", "eps"),
        ("euler", 50, "sample", "eps"),
    ],
)
def test_loss_equals_the_computation_by_hand(prediction_type, predictor, dt, time_per, space):
    loss = CoDiLoss(
        schedule=SCHEDULE,
        prediction_type=prediction_type,
        predictor=predictor,
        dt=dt,
        time_per=time_per,
        consistency_space=space,
        data_weight=0.5,
        consistency_weight=2.0,
    )
    predict, batch = Recorder(), make_batch()

    def teacher(z_t, t, cond):
        return 0.3 * z_t

    result = run(loss, predict, PARAMS, TARGET, batch, jax.random.key(5), teacher=teacher)
    (params_t, z_t, t), (params_s, z_s, s) = predict.calls
    assert params_t is PARAMS and params_s is TARGET
    np.testing.assert_array_equal(s, t - dt)

    # The noise is recovered from z_t, so the by-hand part knows nothing of the random keys.
    x, c = np.float64(batch["latents"]), np.float64(batch["cond"]["c"])
    (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(t), levels(s)
    eps = (z_t - alpha_t * x) / sigma_t
    assert abs(eps.mean()) < 0.4 and 0.7 < eps.std() < 1.3
    x_hat_t, eps_hat_t = predict_numpy(prediction_type, PARAMS, z_t, t, c)
    x_teacher, eps_teacher = convert(prediction_type, 0.3 * z_t, z_t, t)
    angle = np.arctan2(sigma_s, alpha_s) - np.arctan2(sigma_t, alpha_t)
    z_s_by_hand = {
        "prev": alpha_s * x_hat_t + sigma_s * eps,
        "ddim_v": alpha_s * x_hat_t + sigma_s * eps_hat_t,
        "ddim": alpha_s * x_teacher + sigma_s * eps_teacher,
        "euler": z_t + angle * (alpha_t * eps_hat_t - sigma_t * x_hat_t),
    }[predictor]
    np.testing.assert_allclose(z_s, z_s_by_hand, rtol=1e-3, atol=1e-4)
    x_hat_s, eps_hat_s = predict_numpy(prediction_type, TARGET, z_s, s, c)
    pair = (eps_hat_t, eps_hat_s) if space == "eps" else (x_hat_t, x_hat_s)
    consistency, data = mean_square(*pair), mean_square(x, x_hat_t)

    assert set(result) == {"loss", "consistency", "data"}
    assert all(v.shape == (6,) and v.dtype == jnp.float32 for v in result.values())
    np.testing.assert_allclose(result["consistency"], consistency, rtol=2e-3)
    np.testing.assert_allclose(result["data"], data, rtol=2e-3)
    np.testing.assert_allclose(result["loss"], 2.0 * consistency + 0.5 * data, rtol=2e-3)


def test_time_per_batch_is_one_time_that_varies_with_the_key():
    drawn = {"batch": [], "sample": []}
    for time_per, times in drawn.items():
        loss = CoDiLoss(schedule=SCHEDULE, prediction_type="v_prediction", time_per=time_per)
        for seed in range(5):
            predict = Recorder()
            run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(seed))
            times.append(predict.calls[0][2])
    assert all(len(set(t.tolist())) == 1 and t.shape == (6,) for t in drawn["batch"])
    assert len({int(t[0]) for t in drawn["batch"]}) > 1
    assert all(len(set(t.tolist())) > 1 for t in drawn["sample"])


@pytest.mark.parametrize("time_per", ["batch", "sample"])
def test_times_leave_room_for_the_step(time_per):
    loss = CoDiLoss(
        schedule=DiscreteSchedule(num_train_timesteps=4),
        prediction_type="v_prediction",
        dt=2,
        time_per=time_per,
    )
    predict = Recorder()
    for seed in range(8):
        run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(seed))
    online, target = (np.concatenate([t for _, _, t in predict.calls[i::2]]) for i in (0, 1))
    assert set(online.tolist()) == {2, 3} and set(target.tolist()) == {0, 1}


def straight_model(mean, std):
    """v of a model with eps_hat = (z - alpha m) / (alpha s + sigma), x_hat = m + s eps_hat.

    Its trajectories are z_t = alpha x + sigma eps with both constant: self-consistent.
    """

    def predict(params, z_t, t, cond):
        alpha, sigma = (expand(a, z_t) for a in SCHEDULE.alpha_sigma(t))
        eps_hat = (z_t - alpha * mean) / (alpha * std + sigma)
        return from_x_eps("v_prediction", mean + std * eps_hat, eps_hat, alpha, sigma)

    return predict


def gaussian_denoiser(mean, std):
    """v of the exact denoiser of x ~ N(m, s^2): correct, but not self-consistent."""

    def predict(params, z_t, t, cond):
        alpha, sigma = (expand(a, z_t) for a in SCHEDULE.alpha_sigma(t))
        x_hat = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (z_t - alpha * mean)
        eps_hat = (z_t - alpha * x_hat) / sigma
        return from_x_eps("v_prediction", x_hat, eps_hat, alpha, sigma)

    return predict


@pytest.mark.parametrize("space", ["eps", "x"])
def test_a_self_consistent_model_has_no_consistency_loss(space):
    loss = CoDiLoss(
        schedule=SCHEDULE,
        prediction_type="v_prediction",
        predictor="ddim_v",
        dt=200,
        time_per="sample",
        consistency_space=space,
    )
    key, batch = jax.random.key(0), make_batch()
    consistent = run(loss, straight_model(0.3, 0.8), {}, {}, batch, key)
    control = run(loss, gaussian_denoiser(0.3, 0.8), {}, {}, batch, key)
    assert consistent["consistency"].max() < 1e-9
    assert consistent["data"].min() > 1e-3  # only the consistency term vanishes
    assert control["consistency"].min() > 1e-5


def total(loss, params, target_params, teacher_scale, batch, key):
    def predict(params, z_t, t, cond):
        return network(params, z_t, t.astype(jnp.float32), cond["c"])

    result = run(
        loss,
        predict,
        params,
        target_params,
        batch,
        key,
        teacher=lambda z_t, t, _: teacher_scale * z_t,
    )
    return jnp.sum(result["loss"])


@pytest.mark.parametrize("predictor", ["prev", "ddim_v", "ddim", "euler"])
def test_only_the_online_prediction_at_t_has_a_gradient(predictor):
    loss = CoDiLoss(
        schedule=SCHEDULE,
        prediction_type="v_prediction",
        predictor=predictor,
        dt=100,
        time_per="sample",
    )
    batch, key, scale = make_batch(), jax.random.key(2), jnp.float32(0.3)
    grad, target_grad, teacher_grad = jax.grad(total, argnums=(1, 2, 3))(
        loss, PARAMS, TARGET, scale, batch, key
    )
    assert target_grad == {"w": 0.0, "b": 0.0} and teacher_grad == 0.0

    # Central differences of the loss with z_s and eps_hat_s frozen; exact, as it is quadratic.
    predict = Recorder()
    run(loss, predict, PARAMS, TARGET, batch, key, teacher=lambda z_t, t, _: scale * z_t)
    (_, z_t, t), (_, z_s, s) = predict.calls
    x, c = np.float64(batch["latents"]), np.float64(batch["cond"]["c"])
    _, eps_hat_s = predict_numpy("v_prediction", TARGET, z_s, s, c)

    def frozen(params):
        x_hat_t, eps_hat_t = predict_numpy("v_prediction", params, z_t, t, c)
        return np.sum(mean_square(eps_hat_t, eps_hat_s) + mean_square(x, x_hat_t))

    for name in PARAMS:
        up, down = ({**PARAMS, name: float(PARAMS[name]) + h} for h in (0.01, -0.01))
        slope = (frozen(up) - frozen(down)) / 0.02
        assert float(grad[name]) == pytest.approx(slope, rel=1e-3)


def test_jit_equals_eager_and_bfloat16_networks_give_float32_losses():
    loss, batch = CoDiLoss(schedule=SCHEDULE, prediction_type="v_prediction"), make_batch()
    batch["latents"] = batch["latents"].astype(jnp.bfloat16)

    def predict(params, z_t, t, cond):
        return (params["w"] * z_t + cond["c"]).astype(jnp.bfloat16)

    def call(params, batch, key):
        return run(loss, predict, params, TARGET, batch, key)

    eager = call(PARAMS, batch, jax.random.key(1))
    jitted = jax.jit(call)(PARAMS, batch, jax.random.key(1))
    for name, value in eager.items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, jitted[name], rtol=0.05)


def test_continuous_schedule_draws_real_times():
    loss = CoDiLoss(schedule=ContinuousSchedule(), prediction_type="v_prediction", dt=20)
    predict = Recorder()
    result = run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(1))
    (_, _, t), (_, _, s) = predict.calls
    assert t.dtype == np.float32 and np.all(t >= 20) and np.all(t <= 999)
    np.testing.assert_allclose(s, t - 20, rtol=1e-6)
    assert np.isfinite(result["loss"]).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prediction_type", "flow", "v_prediction, epsilon, sample"),
        ("predictor", "heun", "prev, ddim_v, ddim, euler"),
        ("time_per", "host", "batch, sample"),
        ("consistency_space", "v", "eps, x"),
        ("consistency_distance", "lpips", "consistency_distance='lpips'.*l2, l1, huber"),
        ("data_distance", "lpips", "data_distance='lpips'.*l2, l1, huber"),
        ("dt", 0, "dt=0"),
        ("dt", 1000, "dt=1000"),
    ],
)
def test_bad_settings_are_refused_at_construction(field, value, message):
    settings = {"schedule": SCHEDULE, "prediction_type": "v_prediction", field: value}
    with pytest.raises(UserError, match=message):
        CoDiLoss(**settings)


def test_refused_combinations():
    zero_snr = DiscreteSchedule(rescale_betas_zero_snr=True)
    for loss in (CoDiLoss, DiffusionLoss):
        with pytest.raises(UserError, match="zero terminal SNR"):
            loss(schedule=zero_snr, prediction_type="epsilon")

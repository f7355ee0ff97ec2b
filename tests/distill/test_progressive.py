"""Guided and progressive distillation against computations by hand; stages and teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.timesteps import inference_timesteps
from codi_jax.distill.base import grid_time
from codi_jax.distill.loss import Networks, StepContext
from codi_jax.distill.progressive import GuidedLoss, ProgressiveLoss, two_step_target
from codi_jax.typing import UserError
from tests.distill.toy import (
    PARAMS,
    SCHEDULE,
    TARGET,
    Recorder,
    levels,
    make_batch,
    mean_square,
    network,
    predict_numpy,
    run,
)

SETTINGS = {"schedule": SCHEDULE, "prediction_type": "v_prediction"}


def progressive(**changes):
    return ProgressiveLoss(**SETTINGS, **{"initial_steps": 8, "steps_per_stage": 10, **changes})


@pytest.mark.parametrize("n", [1, 4, 50, 61])
def test_grid_times_are_the_samplers(n):
    times = grid_time(1000, n, jnp.arange(n, 0, -1))
    np.testing.assert_array_equal(times, inference_timesteps(1000, n))
    assert int(grid_time(1000, n, jnp.asarray(0))) == -1


def test_stages_halve_and_the_teacher_changes_at_their_ends():
    loss = progressive(final_steps=2)
    steps = [int(loss.student_steps(jnp.asarray(i))) for i in (0, 9, 10, 19, 20, 29, 30, 500)]
    assert steps == [8, 8, 4, 4, 2, 2, 2, 2]
    # Evaluated with the number of steps done: the first step of a stage has the new teacher.
    ends = [i for i in range(1, 60) if float(loss.teacher_decay(jnp.asarray(i))) == 0.0]
    assert ends == [10, 20]


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_progressive_loss_equals_the_computation_by_hand(prediction_type):
    loss = ProgressiveLoss(
        schedule=SCHEDULE, prediction_type=prediction_type, initial_steps=8, steps_per_stage=10
    )
    predict, batch = Recorder(), make_batch()
    context = StepContext(jax.random.key(2), jnp.asarray(13, jnp.int32))  # stage 1: 4 steps
    result = loss(Networks(predict), PARAMS, TARGET, batch, context)
    (p_1, z_t, t), (p_2, z_m, m), (p_3, z_again, t_again) = predict.calls
    assert p_1 is TARGET and p_2 is TARGET and p_3 is PARAMS
    np.testing.assert_array_equal(z_t, z_again)
    np.testing.assert_array_equal(t, t_again)
    assert set(t.tolist()) <= {249, 499, 749, 999} and np.all(t - m == 125)
    c = np.float64(batch["cond"]["c"])

    def ddim(z, start, end):
        x_hat, eps_hat = predict_numpy(prediction_type, TARGET, z, start, c)
        alpha, sigma = clean_or_levels(end)
        return alpha * x_hat + sigma * eps_hat

    def clean_or_levels(at):
        alpha, sigma = levels(np.maximum(at, 0))
        clean = (at < 0).reshape(-1, 1, 1, 1)
        return np.where(clean, 1.0, alpha), np.where(clean, 0.0, sigma)

    np.testing.assert_allclose(z_m, ddim(z_t, t, m), rtol=2e-3, atol=2e-3)
    z_s = ddim(z_m, m, t - 250)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = levels(t), clean_or_levels(t - 250)
    # The student's DDIM step must end in z_s: solve alpha_s x + sigma_s (z_t - alpha_t x)/sigma_t.
    x_target = (z_s - sigma_s / sigma_t * z_t) / (alpha_s - sigma_s / sigma_t * alpha_t)
    x_hat, _ = predict_numpy(prediction_type, PARAMS, z_t, t, c)
    expected = mean_square(x_hat, x_target) / sigma_t[:, 0, 0, 0] ** 2
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-2)
    assert set(result["student_steps"].tolist()) == {4.0}


def test_the_target_s_ddim_step_ends_where_the_two_steps_do():
    rng = np.random.default_rng(0)
    z_t, z_s = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
    alpha_t, sigma_t, alpha_s, sigma_s = jnp.asarray(
        [[0.0, 0.6, 0.3], [1.0, 0.8, 0.954], [0.5, 1.0, 0.8], [0.866, 0.0, 0.6]]
    )
    x = two_step_target(z_t, z_s, alpha_t, sigma_t, alpha_s, sigma_s)
    eps = (z_t - alpha_t[:, None] * x) / sigma_t[:, None]
    np.testing.assert_allclose(alpha_s[:, None] * x + sigma_s[:, None] * eps, z_s, atol=1e-5)


def test_guided_loss_fits_the_guided_prediction_at_the_scale_that_the_student_reads():
    loss = GuidedLoss(**SETTINGS, guidance_range=(1.0, 5.0))
    batch, seen = make_batch(), []

    def teacher(z, t, cond):
        return network(PARAMS, z, t.astype(jnp.float32), cond["c"])

    def student(params, z, t, cond):
        seen.append((z, t, cond["guidance_scale"]))
        w = cond["guidance_scale"][:, None, None, None]
        return params["gain"] * network(PARAMS, z, t.astype(jnp.float32), w * cond["c"])

    def null(cond):
        return {**cond, "c": jnp.zeros_like(cond["c"])}

    # The toy is linear in c, so that guidance by w is the condition times w.
    exact, off = (
        run(loss, student, {"gain": gain}, {}, batch, jax.random.key(1), teacher, null=null)
        for gain in (jnp.float32(1.0), jnp.float32(1.5))
    )
    assert float(exact["loss"].max()) < 1e-6
    z, t, w = (np.float64(a) for a in seen[-1])
    t = t.astype(int)
    v = network(
        {k: float(p) for k, p in PARAMS.items()},
        z,
        t,
        w[:, None, None, None] * np.float64(batch["cond"]["c"]),
    )
    np.testing.assert_allclose(off["loss"], mean_square(1.5 * v, v), rtol=5e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("initial_steps", 251),
        ("initial_steps", 6),
        ("final_steps", 3),
        ("steps_per_stage", 0),
        ("guidance_range", (2.0, 1.0)),
    ],
)
def test_bad_settings_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        progressive(**{field: value})

"""Consistency distillation against the computation by hand, in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.consistency import ConsistencyLoss
from codi_jax.distill.distances import distance
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
    predict_numpy,
    run,
)


def scaled(x_hat, z, t):
    scaled_t = 10.0 * t.reshape(-1, 1, 1, 1)
    c_skip = 0.25 / (scaled_t**2 + 0.25)
    return c_skip * z + scaled_t / np.sqrt(scaled_t**2 + 0.25) * x_hat


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_loss_equals_the_computation_by_hand(prediction_type):
    loss = ConsistencyLoss(schedule=SCHEDULE, prediction_type=prediction_type, grid_steps=5)
    predict, batch = Recorder(), make_batch()
    result = run(
        loss, predict, PARAMS, TARGET, batch, jax.random.key(3), lambda z, t, cond: 0.3 * z
    )
    (params_t, z_t, t), (params_s, z_s, s) = predict.calls
    assert params_t is PARAMS and params_s is TARGET
    assert set(t.tolist()) <= {199, 399, 599, 799, 999}
    np.testing.assert_array_equal(s, np.maximum(t - 200, 0))
    x_teacher, eps_teacher = convert(prediction_type, 0.3 * z_t, z_t, t)
    alpha_s, sigma_s = levels(s)
    np.testing.assert_allclose(
        z_s, alpha_s * x_teacher + sigma_s * eps_teacher, rtol=1e-3, atol=1e-4
    )
    c = np.float64(batch["cond"]["c"])
    online = scaled(predict_numpy(prediction_type, PARAMS, z_t, t, c)[0], z_t, t)
    target = scaled(predict_numpy(prediction_type, TARGET, z_s, s, c)[0], z_s, s)
    np.testing.assert_allclose(result["loss"], mean_square(online, target), rtol=3e-3)


def test_guided_teacher_and_a_student_that_is_told_the_scale():
    loss = ConsistencyLoss(
        schedule=SCHEDULE, prediction_type="v_prediction", grid_steps=5, guidance_range=(2.0, 4.0)
    )
    batch, seen = make_batch(), []

    def teacher(z, t, cond):
        return cond["c"] + 0 * z

    def predict(params, z, t, cond):
        seen.append((z, t, cond["guidance_scale"]))
        return 0 * z

    def null(cond):
        return {**cond, "c": jnp.ones_like(cond["c"])}

    run(loss, predict, {}, {}, batch, jax.random.key(3), teacher, null=null)
    (z_t, t, w), (z_s, s, w_s) = ((np.asarray(a) for a in call) for call in seen)
    np.testing.assert_array_equal(w, w_s)
    assert w.min() >= 2.0 and w.max() <= 4.0 and len(set(w.tolist())) > 1
    v = 1 + w[:, None, None, None] * (np.float64(batch["cond"]["c"]) - 1)
    x_hat, eps_hat = convert("v_prediction", v, np.float64(z_t), t)
    alpha_s, sigma_s = levels(s)
    np.testing.assert_allclose(z_s, alpha_s * x_hat + sigma_s * eps_hat, rtol=1e-3, atol=1e-4)


def test_distances():
    settings = {"schedule": SCHEDULE, "prediction_type": "v_prediction", "grid_steps": 5}
    batch, key = make_batch(), jax.random.key(3)
    found = {}
    for name in ("l2", "huber", "lpips"):
        loss = ConsistencyLoss(**settings, distance=name)
        assert loss.needs.perceptual == (name == "lpips")
        found[name] = run(
            loss,
            Recorder(),
            PARAMS,
            TARGET,
            batch,
            key,
            lambda z, t, cond: 0.3 * z,
            decode=lambda z: 2 * z,
            perceptual=lambda a, b: distance("l2", a, b),
        )["loss"]
    np.testing.assert_allclose(found["lpips"], 4 * found["l2"], rtol=1e-5)
    c = 0.00054
    np.testing.assert_allclose(found["huber"], np.sqrt(found["l2"] + c**2) - c, rtol=1e-4)
    for field, value in (("distance", "l1"), ("grid_steps", 501), ("guidance_range", (3.0, 2.0))):
        with pytest.raises(UserError, match=field):
            ConsistencyLoss(**(settings | {field: value}))


def test_codi_on_the_teachers_path_with_boundary_scalings_is_the_same_loss():
    common = {"schedule": SCHEDULE, "prediction_type": "v_prediction", "grid_steps": 5}
    codi = CoDiLoss(
        **common,
        predictor="ddim",
        time_per="sample",
        consistency_space="x",
        timestep_scaling=10.0,
        data_weight=0.0,
    )
    arguments = (PARAMS, TARGET, make_batch(), jax.random.key(3), lambda z, t, cond: 0.3 * z)
    found = [run(loss, Recorder(), *arguments) for loss in (codi, ConsistencyLoss(**common))]
    np.testing.assert_allclose(found[0]["loss"], found[1]["loss"], rtol=1e-5)


def test_what_was_distilled_is_sampled_at_the_times_and_with_the_scalings_of_the_training():
    loss = ConsistencyLoss(
        schedule=SCHEDULE, prediction_type="v_prediction", grid_steps=7, timestep_scaling=3.0
    )
    expected = SamplerConfig(solver="consistency", original_inference_steps=7, timestep_scaling=3.0)
    assert loss.sampler == expected
    codi = CoDiLoss(schedule=SCHEDULE, prediction_type="v_prediction")
    assert codi.sampler == SamplerConfig()

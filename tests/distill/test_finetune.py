"""The ordinary diffusion loss against the computation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.distill.finetune import DiffusionLoss
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
    run,
)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_diffusion_loss_equals_the_computation_by_hand(prediction_type):
    predict, batch = Recorder(), make_batch()
    loss = DiffusionLoss(schedule=SCHEDULE, prediction_type=prediction_type)
    result = run(loss, predict, PARAMS, TARGET, batch, jax.random.key(4))
    ((params, z_t, t),) = predict.calls
    assert params is PARAMS and len(set(t.tolist())) > 1
    x, c = np.float64(batch["latents"]), np.float64(batch["cond"]["c"])
    alpha, sigma = levels(t)
    eps = (z_t - alpha * x) / sigma
    target = {"v_prediction": alpha * eps - sigma * x, "epsilon": eps, "sample": x}
    output = network({k: float(v) for k, v in PARAMS.items()}, z_t, t, c)
    expected = mean_square(output, target[prediction_type])
    assert set(result) == {"loss"} and result["loss"].dtype == jnp.float32
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-3)


def test_diffusion_loss_reaches_the_first_and_the_last_timestep():
    small = DiscreteSchedule(num_train_timesteps=3)
    predict = Recorder()
    loss = DiffusionLoss(schedule=small, prediction_type="v_prediction")
    for seed in range(4):
        run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(seed))
    assert set(np.concatenate([t for _, _, t in predict.calls]).tolist()) == {0, 1, 2}


def test_condition_dropout_replaces_the_condition_of_that_share():
    loss = DiffusionLoss(schedule=SCHEDULE, prediction_type="v_prediction", condition_dropout=0.3)
    seen = []

    def predict(params, z_t, t, cond):
        seen.append(np.asarray(cond["c"]))
        return z_t

    batch = {"latents": jnp.zeros((400, 1, 1, 1)), "cond": {"c": jnp.ones((400, 2))}}
    run(loss, predict, {}, {}, batch, jax.random.key(0), null=lambda c: {"c": 0 * c["c"]})
    assert set(np.unique(seen[0])) == {0.0, 1.0}
    np.testing.assert_array_equal(seen[0][:, 0], seen[0][:, 1])
    assert 0.2 < 1 - seen[0].mean() < 0.4
    with pytest.raises(UserError, match=r"condition_dropout=1\.0"):
        DiffusionLoss(schedule=SCHEDULE, prediction_type="v_prediction", condition_dropout=1.0)

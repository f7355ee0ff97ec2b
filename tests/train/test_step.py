"""The step: sharded equals single-device, frozen stays frozen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax import trees
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.loss import Networks, StepContext
from codi_jax.model import Model
from codi_jax.parallel.mesh import put_batch
from codi_jax.run.plan import plan
from codi_jax.run.start import Run, start
from codi_jax.train.optim import OptimConfig, make_optimizer
from codi_jax.train.state import create_state
from codi_jax.train.step import make_step
from codi_jax.typing import UserError
from configs import sr
from tests.smallest import shrunk


def tiny(**mesh: int) -> Any:
    config = shrunk(sr.get_config("tiny"))
    config.mesh.update(mesh or {"data": 1, "fsdp": 1})
    config.optim.warmup_steps = 0
    return config


def batch(size: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 32, 32, 3), np.uint8),
        "lr": rng.integers(0, 256, (size, 8, 8, 3), np.uint8),
    }


def build_run(config: Any) -> Run:
    return start(plan(config))


def one_step(run: Run) -> tuple[Any, dict[str, float]]:
    state, metrics = run.step(
        run.state, run.frozen, put_batch(run.plan.mesh, batch()), run.plan.key
    )
    return jax.device_get(state), {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def single() -> tuple[Any, dict[str, float], Any]:
    """State and metrics after a step on one device, and the state before."""
    run = build_run(tiny())
    before = jax.tree.map(np.array, run.state)  # the step donates it
    return *one_step(run), before


@pytest.mark.parametrize(
    "mesh",
    [{"data": 2, "fsdp": 4}, pytest.param({"data": 8, "fsdp": 1}, marks=pytest.mark.slow)],
)
def test_sharded_step_equals_single_device(single: Any, mesh: dict[str, int]) -> None:
    state, metrics = one_step(build_run(tiny(**mesh)))
    for name, value in single[1].items():
        assert metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    # Adam's first update is the sign of the gradient times the rate, so the moments say more.
    want, have = trees.flatten(single[0].opt[1].mu), trees.flatten(state.opt[1].mu)
    for path in want:
        np.testing.assert_allclose(have[path], want[path], atol=1e-5, err_msg=path)


def test_the_step_changes_what_trains_and_counts(single: Any) -> None:
    state, _, before = single
    assert int(state.step) == 1
    assert float(state.trainable["adapter"]["mu"]) != 0.0
    old, new = trees.flatten(before.trainable), trees.flatten(state.trainable)
    unet = [path for path in old if path.startswith("unet/")]
    changed = [path for path in unet if not np.array_equal(old[path], new[path])]
    assert len(changed) > 0.9 * len(unet)
    # At mu = 0 the copied encoder receives no gradient yet: mu opens the path first.
    bias = "adapter/conv_in/bias"
    np.testing.assert_array_equal(old[bias], new[bias])
    target = trees.flatten(state.ema["target"])
    decay = 0.95
    for path in changed[:5]:
        np.testing.assert_allclose(
            target[path], decay * old[path] + (1 - decay) * new[path], rtol=1e-5, atol=1e-7
        )


def flops(regex: str) -> float:
    """FLOPs of one CoDi step on ready latents: the autoencoder costs the same either way."""
    config = tiny()
    config.model.trainable = regex
    planned = plan(config)
    model = planned.model
    assert isinstance(model, Model)
    loss = CoDiLoss(schedule=model.schedule, prediction_type=model.prediction_type)

    def objective(params: Any, target: Any, data: Any, context: StepContext) -> Any:
        return loss(Networks(model.network.predict), params, target, data, context)

    optimizer = make_optimizer(OptimConfig(), 10)
    step = make_step(objective, optimizer, {"target": 0.9})
    trainable = planned.state.trainable
    state = jax.eval_shape(lambda params: create_state(params, optimizer, ("target",)), trainable)
    latents = jax.ShapeDtypeStruct((8, 16, 16, 4), jnp.float32)
    data = {"latents": latents, "cond": {"latents": latents}}
    key = jax.eval_shape(lambda: planned.key)
    # Not compiled: XLA would also leave out what is computed in vain.
    return jax.jit(step).lower(state, planned.frozen, data, key).cost_analysis()["flops"]


def test_parameter_efficient_step_computes_no_frozen_gradient() -> None:
    assert flops("adapter/.*") <= 0.8 * flops("(unet|adapter)/.*")


@pytest.mark.slow
def test_frozen_parameters_do_not_change_by_a_bit() -> None:
    """Nor does the prior, as it was at the start, which the predictor "ddim" asks."""
    config = tiny()
    config.model.trainable, config.loss.predictor = "unet/.*", "ddim"
    run = build_run(config)
    assert set(run.frozen) == {"vae", "adapter", "teacher"}
    assert set(run.frozen["teacher"]) == {"unet"}
    before = trees.tree_hash(run.frozen)
    state, metrics = one_step(run)
    assert trees.tree_hash(run.frozen) == before
    assert set(state.trainable) == {"unet"}
    assert np.isfinite(metrics["loss"])


def test_errors_name_what_does_not_fit() -> None:
    config = tiny()
    config.model.trainable = "nothing"
    with pytest.raises(UserError, match="matches no parameter"):
        build_run(config)
    config = tiny()
    config.loss.predictor = "magic"
    with pytest.raises(UserError, match="magic"):
        build_run(config)
    with pytest.raises(UserError, match="bfloat16"):
        create_state({"w": jnp.ones((2,), jnp.bfloat16)}, optax.sgd(0.1), ())

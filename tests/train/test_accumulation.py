"""A step without networks: parts of a batch, keys, the target, the averages, the metrics."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax.distill.loss import StepContext
from codi_jax.train.state import create_state
from codi_jax.train.step import SKIPPED, make_step

KEY = jax.random.key(7)
X = 2.0 ** np.arange(8, dtype=np.float32)


def objective(params: Any, target: Any, batch: Any, context: StepContext) -> dict[str, Any]:
    """Linear in w; the other terms report what the loss was given."""
    x = batch["x"]
    part = -1 if context.part is None else context.part
    reports = {f"of_{k}": jnp.where(part == k, x, 0.0) for k in range(4)}
    draw = jax.random.uniform(context.key)
    same = jnp.broadcast_to
    return {
        "loss": params["w"] * x + params["frozen"],
        "draw": same(draw, x.shape),
        "target": same(target["w"], x.shape),
        "step": same(context.step.astype(jnp.float32), x.shape),
        **reports,
    }


def steps(count: int = 1, **settings: Any) -> list[tuple[Any, dict[str, float]]]:
    optimizer = optax.sgd(0.01)
    state = create_state({"w": jnp.asarray(2.0)}, optimizer, ("target",))
    step = jax.jit(make_step(objective, optimizer, {"target": 0.5}, **settings))
    found = []
    for _ in range(count):
        state, metrics = step(state, {"frozen": jnp.asarray(1.0)}, {"x": jnp.asarray(X)}, KEY)
        found.append((state, {name: float(value) for name, value in metrics.items()}))
    return found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(bad: float) -> None:
    optimizer = optax.adam(0.01)
    state = create_state({"w": jnp.asarray(2.0)}, optimizer, ("target",))
    step = jax.jit(make_step(objective, optimizer, {"target": 0.5}))
    x = jnp.asarray(X)
    state, metrics = step(state, {"frozen": jnp.asarray(1.0)}, {"x": x}, KEY)
    assert float(metrics[SKIPPED]) == 0.0
    for frozen, batch in ((bad, x), (1.0, x.at[3].set(bad))):
        after, metrics = step(state, {"frozen": jnp.asarray(frozen)}, {"x": batch}, KEY)
        assert float(metrics[SKIPPED]) == 1.0 and int(after.step) == 2
        old, new = dataclasses.replace(state, step=0), dataclasses.replace(after, step=0)
        jax.tree.map(np.testing.assert_array_equal, old, new)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_parts_average_to_the_whole_batch(accumulation: int) -> None:
    ((state, metrics),) = steps(accumulation=accumulation)
    assert float(state.trainable["w"]) == pytest.approx(2 - 0.01 * X.mean(), rel=1e-6)
    assert metrics["loss"] == pytest.approx(2 * X.mean() + 1, rel=1e-6)
    assert metrics["grad_norm"] == pytest.approx(X.mean(), rel=1e-6)


def test_each_part_takes_every_fourth_example_and_knows_its_number() -> None:
    """So a part has examples of each device, whose examples lie together."""
    ((_, metrics),) = steps(accumulation=4)
    for k in range(4):
        assert metrics[f"of_{k}"] == pytest.approx((X[k] + X[k + 4]) / 8, rel=1e-6)
    ((_, metrics),) = steps()
    assert {metrics[f"of_{k}"] for k in range(4)} == {0.0}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_has_its_own_key_and_number(accumulation: int) -> None:
    found = [metrics for _, metrics in steps(2, accumulation=accumulation)]
    for step, metrics in enumerate(found):
        draw = float(jax.random.uniform(jax.random.fold_in(KEY, step)))
        assert metrics["step"] == step
        assert metrics["draw"] == pytest.approx(draw, rel=1e-6)


def test_the_target_is_the_average_and_without_one_the_parameters() -> None:
    (first, _), (_, metrics) = steps(2)
    w = float(first.trainable["w"])
    assert metrics["target"] == pytest.approx((2 + w) / 2, rel=1e-6)
    (_, _), (_, metrics) = steps(2, target="absent")
    assert metrics["target"] == pytest.approx(w, rel=1e-6)


def test_averages_start_as_copies() -> None:
    """A step donates its state: one buffer must not be there twice."""
    trainable = {"w": jnp.ones(3)}
    state = create_state(trainable, optax.sgd(0.1), ("a", "b"))
    leaves = [trainable["w"], state.ema["a"]["w"], state.ema["b"]["w"]]
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == 3
    assert int(state.step) == 0 and state.step.dtype == jnp.int32


def test_averages_by_decay_and_by_a_function_of_the_steps_done() -> None:
    """The weights by hand; in float32, 1 - gamma is rounded before it multiplies."""
    optimizer = optax.sgd(1.0)
    state = create_state({"w": jnp.asarray([1.0, -3.0])}, optimizer, ("slow", "staged"))

    def linear(params: Any, target: Any, data: Any, context: StepContext) -> Any:
        return {"loss": (params["w"] * data["x"]).sum(axis=-1)}

    def decay(done: jax.Array) -> jax.Array:
        return jnp.where(done % 2 == 0, 0.0, 1.0)

    step = make_step(linear, optimizer, {"slow": 0.95, "staged": decay})
    data = {"x": jnp.asarray([[0.25, 0.5]])}
    slow, staged, trained = ([] for _ in range(3))
    for _ in range(2):
        state, _ = step(state, {}, data, jax.random.key(0))
        for found, tree in ((slow, state.ema["slow"]), (staged, state.ema["staged"])):
            found.append(np.asarray(tree["w"]))
        trained.append(np.asarray(state.trainable["w"]))
    np.testing.assert_array_equal(trained, [[0.75, -3.5], [0.5, -4.0]])
    np.testing.assert_array_equal(staged, [[1.0, -3.0], [0.5, -4.0]])
    gamma = np.float32(0.95)
    first = gamma * np.float32([1.0, -3.0]) + (1 - gamma) * trained[0]
    np.testing.assert_array_equal(slow, [first, gamma * first + (1 - gamma) * trained[1]])

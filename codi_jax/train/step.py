"""The training step: loss, gradient of the trainable parameters alone, update, averages."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from codi_jax import trees
from codi_jax.distill.loss import StepContext
from codi_jax.models.parts import parts as split
from codi_jax.train.state import TrainState
from codi_jax.typing import Array, Params, PyTree

#: ``objective(params, target_params, batch, context) -> losses per sample``, "loss" among them.
Objective = Callable[[Params, Params, Mapping[str, Array], StepContext], dict[str, Array]]
#: gamma of an average; or as a function of the number of steps that are done with this one.
Decay = float | Callable[[Array], Array]
#: The metric that is 1 for a step that was skipped, else 0.
SKIPPED = "skipped"
GradsAndMetrics = tuple[Params, dict[str, Array]]
GradFn = Callable[[Params, Params, Params, Mapping[str, Array], StepContext], GradsAndMetrics]
#: Number of a part of a batch, and its arrays.
Part = tuple[Array, Mapping[str, Array]]
StepFn = Callable[
    [TrainState, Params, Mapping[str, Array], Array], tuple[TrainState, dict[str, Array]]
]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decays: Mapping[str, Decay],
    *,
    accumulation: int = 1,
    target: str = "target",
    gather: Callable[[Params], Params] = lambda params: params,
) -> StepFn:
    """The function that a run repeats; jitting it is left to the caller.

    The gradient is of ``state.trainable`` alone. A step whose loss or gradient is not finite is
    skipped: all but its number stays as it was.

    Args:
        objective: the losses; its draws come from ``fold_in(key, step)``.
        optimizer: from :func:`codi_jax.train.optim.make_optimizer`.
        ema_decays: gamma of each average, by name.
        accumulation: the number of equal parts that a batch is worked through in.
        target: name of the average that serves as theta-; without it the online parameters do.
        gather: makes parameters whole that are split over devices.

    Returns:
        ``step(state, frozen, batch, key) -> (state, metrics)``: the losses' means over the batch,
        "grad_norm", "drift_NAME" (the norm of the parameters less the average NAME), "mu" of an
        adapter that has one, and :data:`SKIPPED`.
    """

    def loss_fn(
        trainable: Params,
        ema: Params,
        frozen: Params,
        batch: Mapping[str, Array],
        context: StepContext,
    ) -> tuple[Array, dict[str, Array]]:
        params = gather(trees.merge(trainable, frozen))
        target_params = gather(trees.merge(ema, frozen))
        losses = objective(params, target_params, batch, context)
        means = {name: value.mean() for name, value in losses.items()}
        return means["loss"], means

    grad_fn = _accumulated(jax.grad(loss_fn, has_aux=True), accumulation)

    def step(
        state: TrainState, frozen: Params, batch: Mapping[str, Array], key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        context = StepContext(jax.random.fold_in(key, state.step), state.step)
        ema = state.ema.get(target, state.trainable)
        grads, metrics = grad_fn(state.trainable, ema, frozen, batch, context)
        updates, opt = optimizer.update(grads, state.opt, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        done = state.step + 1
        decays = {name: g(done) if callable(g) else g for name, g in ema_decays.items()}
        averages = {name: _average(state.ema[name], trainable, g) for name, g in decays.items()}
        metrics |= {"grad_norm": optax.tree.norm(grads), **_of_parameters(trainable, averages)}
        old = (state.trainable, state.ema, state.opt)
        kept, metrics[SKIPPED] = _where_finite(metrics, (trainable, averages, opt), old)
        return TrainState(done, *kept), metrics

    return step


def _of_parameters(trainable: Params, averages: Mapping[str, Params]) -> dict[str, Array]:
    """How far they are from their averages, and the adapter's mu of equation 10, if it has one."""
    found = {
        f"drift_{name}": optax.tree.norm(optax.tree.sub(trainable, average))
        for name, average in averages.items()
    }
    for path, leaf in trees.flatten(trainable).items():
        if path.rpartition("/")[2] == "mu":
            found["mu"] = jnp.mean(leaf)
    return found


def _where_finite(metrics: Mapping[str, Array], new: PyTree, old: PyTree) -> tuple[PyTree, Array]:
    """``new`` and 0, or ``old`` and 1 where loss or gradient is not finite."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
    return kept, jnp.where(finite, 0.0, 1.0)


def _accumulated(grad_fn: GradFn, parts: int) -> GradFn:
    """``grad_fn`` on a batch that is worked through in parts, whose results are averaged."""
    if parts == 1:
        return grad_fn

    def accumulated(
        trainable: Params,
        ema: Params,
        frozen: Params,
        batch: Mapping[str, Array],
        context: StepContext,
    ) -> GradsAndMetrics:
        def one(part: Part) -> GradsAndMetrics:
            index, micro = part
            return grad_fn(trainable, ema, frozen, micro, context._replace(part=index))

        def add(sums: GradsAndMetrics, part: Part) -> tuple[GradsAndMetrics, None]:
            return jax.tree.map(jnp.add, sums, one(part)), None

        xs = (jnp.arange(parts), split(batch, parts))
        shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], xs))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        sums, _ = jax.lax.scan(add, zeros, xs)
        return jax.tree.map(lambda x: x / parts, sums)

    return accumulated


def _average(old: PyTree, new: PyTree, gamma: Array | float) -> PyTree:
    """``gamma old + (1 - gamma) new``, algorithm 1's update of theta-; leaves are float32."""
    # optax weighs its first argument by the given weight. `old` comes first and gamma is float32,
    # so that 1 - gamma and the sum are rounded as in all runs before.
    return optax.incremental_update(old, new, jnp.asarray(gamma, jnp.float32))

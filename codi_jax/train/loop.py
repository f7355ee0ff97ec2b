"""The training loop: evaluate, save, next batch, step."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import numpy as np

from codi_jax.checkpoint.store import Store
from codi_jax.parallel.mesh import put_batch
from codi_jax.train.flops import jaxpr_flops, utilisation
from codi_jax.train.guard import Guard
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.metrics import MetricsWriter, Progress
from codi_jax.train.state import TrainState
from codi_jax.train.step import SKIPPED, StepFn
from codi_jax.typing import Array, Interrupted, Params


class DataIterator(Protocol):
    """What the loop needs of the data: batches, and a position that can be saved."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next batch: host arrays by name."""

    def get_state(self) -> object:
        """The position: after restoring it, ``next`` gives the batch that comes next now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop:
    """Everything that :meth:`run` needs.

    Attributes:
        step: the jitted step, ``(state, frozen, batch, key) -> (state, metrics)``.
        frozen: parameters that do not train.
        key: root of all randomness of the steps.
        data: host batches.
        keep: names of the batch's arrays that go to the devices.
        mesh: where the batches go.
        store: of the checkpoints; decides when one is due.
        writer: of the metrics.
        evaluate: ``(step, state) -> scalars``.
        meta: saved with each checkpoint.
        steps: of the whole run.
        batch_size: of the global batch, for images per second.
        log_every: steps between two lines of metrics.
        eval_every: steps between two evaluations. There is one at the end, too.
        interrupt: says when a signal has asked the run to stop.
    """

    step: jax.stages.Wrapped
    frozen: Params
    key: jax.Array
    data: DataIterator
    keep: tuple[str, ...]
    mesh: jax.sharding.Mesh
    store: Store
    writer: MetricsWriter
    evaluate: Callable[[int, TrainState], Mapping[str, float]]
    meta: Mapping[str, str]
    steps: int
    batch_size: int
    log_every: int
    eval_every: int
    interrupt: Interrupt = dataclasses.field(default_factory=Interrupt)

    def run(self, state: TrainState) -> TrainState:
        """Train from ``state.step`` to ``steps``.

        Args:
            state: the start's, or that of a checkpoint. It is donated.

        Returns:
            The last state.

        Raises:
            UserError: too many steps in a row were not finite. What came after the last
                checkpoint is lost.
            Interrupted: a signal asked the run to stop; it was saved before.
        """
        start = int(state.step)
        progress = Progress(self.steps, start)
        guard = Guard(self.store.latest_step)
        since, begin = start, time.monotonic()
        step_fn: StepFn = self.step
        flops = 0.0
        try:
            for n in range(start, self.steps + 1):
                last, stop = n == self.steps, self.interrupt.reached(n)
                if n > start and (last or n % self.eval_every == 0):
                    self.writer.write_scalars(n, self.evaluate(n, state))
                    since, begin = n, time.monotonic()
                if n > start and (last or stop or self.store.should_save(n)):
                    guard.settle()
                    self._save(n, state, force=last or stop)
                if last:
                    break
                if stop:
                    raise Interrupted(f"stopped at step {n}, which is saved")
                batch = next(self.data)
                arrays = put_batch(self.mesh, {name: batch[name] for name in self.keep})
                if n == start:
                    traced = self.step.trace(state, self.frozen, arrays, self.key)
                    flops = jaxpr_flops(traced.jaxpr) / self.mesh.size
                    step_fn = traced.lower().compile()
                    self.interrupt.defer()
                state, metrics = step_fn(state, self.frozen, arrays, self.key)
                done = n + 1
                guard.watch(done, metrics, batch.get("name", ()))
                if done % self.log_every == 0 or done == self.steps:
                    guard.settle()
                    seconds = (time.monotonic() - begin) / (done - since)
                    use = utilisation(flops, seconds, self.mesh.devices.flat[0])
                    rate = {"images_per_s": self.batch_size / seconds, **use}
                    self._log(done, metrics, guard.skipped, rate, progress)
                    since, begin = done, time.monotonic()
                else:
                    progress.update(done)
        finally:
            progress.close()
            self.writer.flush()
        return state

    def _log(
        self,
        step: int,
        metrics: Mapping[str, Array],
        skipped: int,
        rate: Mapping[str, float],
        progress: Progress,
    ) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != SKIPPED}
        counted = {SKIPPED: float(skipped)} if skipped else {}
        self.writer.write_scalars(step, {**values, **counted, **rate})
        progress.update(step, {**values, **counted}, rate["images_per_s"])

    def _save(self, n: int, state: TrainState, *, force: bool) -> None:
        self.store.save(
            n,
            trainable=state.trainable,
            ema=state.ema,
            opt=state.opt,
            data_state=self.data.get_state(),
            meta=self.meta,
            force=force,
        )

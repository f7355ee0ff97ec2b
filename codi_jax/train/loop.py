"""The training loop: evaluate, save, next batch, step."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import numpy as np

from codi_jax.checkpoint.store import Store
from codi_jax.parallel.mesh import put_batch
from codi_jax.train.flops import jaxpr_flops
from codi_jax.train.guard import Guard
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.metrics import MetricsWriter, Progress
from codi_jax.train.pace import Pace
from codi_jax.train.profile import Profile
from codi_jax.train.state import TrainState
from codi_jax.train.step import SKIPPED, StepFn
from codi_jax.typing import Array, Interrupted, Params


class DataIterator(Protocol):
    """What the loop needs of the data: batches, and a position that can be saved."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """The next batch: host arrays by name."""

    def get_state(self) -> object:
        """The position: after restoring it, ``next`` gives the batch that comes next now."""


class _Line(NamedTuple):
    """What is to be logged of a step."""

    step: int
    metrics: Mapping[str, Array]
    rates: Mapping[str, float]


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
        meanwhile: called once, while the devices do the second step.
        meta: saved with each checkpoint.
        steps: of the whole run.
        batch_size: of the global batch, for images per second.
        log_every: steps between two lines of metrics.
        eval_every: steps between two evaluations. There is one at the end, too.
        interrupt: says when a signal has asked the run to stop.
        needed_flops: of a step on all devices, without what is computed again for the gradient;
            None where nothing is. Asked for while the devices do the first step.
        pass_flops: of one forward pass of the plain U-Net for one picture, for the log's "passes":
            what all steps so far cost. None where there is no U-Net. Asked for at the same time.
        profile: records some steps.
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
    meanwhile: Callable[[], None] = lambda: None
    meta: Mapping[str, str]
    steps: int
    batch_size: int
    log_every: int
    eval_every: int
    interrupt: Interrupt = dataclasses.field(default_factory=Interrupt)
    needed_flops: Callable[[], float] | None = None
    pass_flops: Callable[[], float | None] = lambda: None
    profile: Profile = Profile(Path(), 0)

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
        pace = Pace(self.batch_size, self.mesh.devices.flat[0])
        pace.restart(start)
        metrics: Mapping[str, Array] = {}
        due: _Line | None = None
        try:
            for n in range(start, self.steps + 1):
                last, stop = n == self.steps, self.interrupt.reached(n)
                evaluating = n > start and (last or n % self.eval_every == 0)
                saving = n > start and (last or stop or self.store.should_save(n))
                if evaluating or saving:
                    guard.settle(n)
                    self._log(due, guard, progress)
                    due = None
                if evaluating:
                    self.writer.write_scalars(n, self.evaluate(n, state))
                    pace.restart(n)
                if saving:
                    self._save(n, state, force=last or stop)
                if last:
                    break
                if stop:
                    raise Interrupted(f"stopped at step {n}, which is saved")
                batch, arrays = self._fetch(pace, metrics)
                if n == start:
                    traced, step_fn = self._compile(state, arrays)
                self.profile.before(n, start, self.steps)
                state, metrics = step_fn(state, self.frozen, arrays, self.key)
                done = n + 1
                if n == start:  # counting may take seconds, and the devices are at work
                    self._count(pace, traced)
                guard.watch(done, metrics, batch.get("name", ()))
                self.profile.after(done, metrics)
                # The devices have the next step already while the line of the last is written.
                self._log(due, guard, progress)
                due = self._line(done, metrics, pace, progress)
                if n == min(start + 1, self.steps - 1):  # the first line has been written
                    self.meanwhile()
                    pace.restart(done)
        finally:
            self.profile.close()
            progress.close()
            self.writer.flush()
        return state

    def _line(
        self, done: int, metrics: Mapping[str, Array], pace: Pace, progress: Progress
    ) -> "_Line | None":
        """The line of this step, if it has one."""
        if done % self.log_every == 0 or done == self.steps:
            return _Line(done, metrics, pace.read(done))
        progress.update(done)
        return None

    def _fetch(
        self, pace: Pace, last: Mapping[str, Array]
    ) -> tuple[Mapping[str, np.ndarray], Mapping[str, Array]]:
        """The next batch on the host, and what of it goes to the devices."""
        begin = time.monotonic()
        batch = next(self.data)
        arrays = put_batch(self.mesh, {name: batch[name] for name in self.keep})
        pace.fetched(begin, last)
        return batch, arrays

    def _compile(
        self, state: TrainState, arrays: Mapping[str, Array]
    ) -> tuple[jax.stages.Traced, StepFn]:
        """The step, traced and compiled; a signal waits from now on for the end of a step."""
        traced = self.step.trace(state, self.frozen, arrays, self.key)
        compiled = traced.lower().compile()
        self.interrupt.defer()
        return traced, compiled

    def _count(self, pace: Pace, traced: jax.stages.Traced) -> None:
        """Tell the FLOPs that a step needs of one device, and its passes."""
        whole = jaxpr_flops(traced.jaxpr) if self.needed_flops is None else self.needed_flops()
        pace.flops = whole / self.mesh.size
        of_a_pass = self.pass_flops()
        if of_a_pass:
            pace.passes = whole / of_a_pass

    def _log(self, line: "_Line | None", guard: Guard, progress: Progress) -> None:
        """Write a line that is due; this waits for its step."""
        if line is None:
            return
        guard.settle(line.step)
        values = {name: float(value) for name, value in line.metrics.items() if name != SKIPPED}
        counted = {SKIPPED: float(guard.skipped)} if guard.skipped else {}
        self.writer.write_scalars(line.step, {**values, **counted, **line.rates})
        progress.update(line.step, {**values, **counted}, line.rates["images_per_s"])

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

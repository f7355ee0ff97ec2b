"""The loop's order of evaluation, checkpoint and step; what it logs; losses that are not finite."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.parallel.mesh import make_mesh
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.loop import Loop
from codi_jax.train.state import TrainState
from codi_jax.train.step import SKIPPED
from codi_jax.typing import Interrupted, UserError


class Data:
    """Counts its batches; the strings do not go to the devices."""

    def __init__(self) -> None:
        self.position = 0

    def __next__(self) -> dict[str, np.ndarray]:
        self.position += 1
        return {"x": np.full((2, 1), self.position, np.float32), "name": np.array(["a", "b"])}

    def get_state(self) -> int:
        return self.position


class Recorder:
    """Store and writer in one: a list of what happened."""

    def __init__(self, due: int) -> None:
        self.due, self.events = due, []

    def should_save(self, step: int) -> bool:
        return step % self.due == 0

    def save(self, step: int, **items: Any) -> None:
        value = float(items["trainable"]["w"])
        self.events.append(("save", step, items["data_state"], value, items["force"]))
        assert items["meta"] == {"version": "1"} and items["ema"] == {} and items["opt"] == ()

    def latest_step(self) -> int | None:
        saved = [event[1] for event in self.events if event[0] == "save"]
        return saved[-1] if saved else None

    def write_scalars(self, step: int, scalars: Any) -> None:
        self.events.append(("scalars", step, dict(scalars)))

    def flush(self) -> None:
        self.events.append(("flush",))


def step_fn(state: TrainState, frozen: Any, batch: Any, key: Any) -> Any:
    w = state.trainable["w"] + frozen["rate"] * batch["x"].mean()
    loss = jnp.log(10.5 - w)
    skipped = jnp.where(jnp.isfinite(loss), 0.0, 1.0)
    return TrainState(state.step + 1, {"w": w}, {}, ()), {"loss": loss, SKIPPED: skipped}


def loop(record: Recorder, data: Data, steps: int, **changes: Any) -> Loop:
    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        record.events.append(("evaluate", step, float(state.trainable["w"])))
        return {"psnr": 20.0}

    settings: dict[str, Any] = {
        "step": jax.jit(step_fn),
        "frozen": {"rate": jnp.asarray(1.0)},
        "key": jax.random.key(0),
        "data": data,
        "keep": ("x",),
        "mesh": make_mesh(1, 1),
        "store": record,
        "writer": record,
        "evaluate": evaluate,
        "meta": {"version": "1"},
        "steps": steps,
        "batch_size": 2,
        "log_every": 2,
        "eval_every": 2,
    }
    return Loop(**(settings | changes))


def start(step: int = 0, w: float = 0.0) -> TrainState:
    return TrainState(jnp.asarray(step, jnp.int32), {"w": jnp.asarray(w)}, {}, ())


def test_evaluate_save_next_batch_step() -> None:
    record, data = Recorder(due=3), Data()
    state = loop(record, data, steps=4).run(start())
    assert int(state.step) == 4 and float(state.trainable["w"]) == 1 + 2 + 3 + 4
    events = [event for event in record.events if event[0] in ("evaluate", "save")]
    # The data's position is that of the batches that were trained on.
    assert events == [
        ("evaluate", 2, 3.0),
        ("save", 3, 3, 6.0, False),
        ("evaluate", 4, 10.0),
        ("save", 4, 4, 10.0, True),
    ]
    assert record.events[-1] == ("flush",)


def test_what_is_logged_and_when() -> None:
    record = Recorder(due=100)
    loop(record, Data(), steps=3, eval_every=100).run(start())
    logged = {event[1]: event[2] for event in record.events if event[0] == "scalars"}
    assert set(logged) == {2, 3}
    assert logged[2]["loss"] == pytest.approx(np.log(10.5 - 3), rel=1e-5)
    assert logged[2]["images_per_s"] > 0
    assert logged[3] == {"psnr": 20.0}  # the evaluation at the end comes after the last step's log


def test_passes_are_those_of_all_steps_so_far() -> None:
    """The step has no product; with FLOPs of its own, two steps cost twice as many passes."""
    record = Recorder(due=100)
    running = loop(
        record, Data(), steps=2, log_every=1, needed_flops=lambda: 90.0, pass_flops=lambda: 6.0
    )
    running.run(start())
    lines = [event[2] for event in record.events if event[0] == "scalars" and "loss" in event[2]]
    assert [line["passes"] for line in lines] == [15.0, 30.0]


def test_a_resumed_run_repeats_neither_evaluation_nor_checkpoint() -> None:
    record = Recorder(due=2)
    state = loop(record, Data(), steps=3).run(start(2, 3.0))
    assert float(state.trainable["w"]) == 4.0
    assert [event[:2] for event in record.events if event[0] in ("evaluate", "save")] == [
        ("evaluate", 3),
        ("save", 3),
    ]
    record = Recorder(due=2)
    assert int(loop(record, Data(), steps=2).run(start(2, 3.0)).step) == 2
    assert record.events == [("flush",)]


class Stop(Interrupt):
    """A signal after so many steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def reached(self, step: int) -> bool:
        return step >= self.step


def test_a_signal_saves_at_the_next_step_and_stops() -> None:
    record = Recorder(due=100)
    with pytest.raises(Interrupted, match="step 3, which is saved"):
        loop(record, Data(), steps=6, interrupt=Stop(3)).run(start())
    saved = [event for event in record.events if event[0] == "save"]
    assert saved == [("save", 3, 3, 6.0, True)]
    assert record.events[-1] == ("flush",)
    record = Recorder(due=100)
    with pytest.raises(Interrupted):  # nothing is new, so nothing is saved
        loop(record, Data(), steps=6, interrupt=Stop(3)).run(start(3, 6.0))
    assert record.events == [("flush",)]


@pytest.mark.parametrize("log_every", [1, 100])
def test_losses_that_are_not_finite_stop_the_run(
    log_every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The logarithm has no value from w = 15 on, after five steps; steps 5 to 14 are ten."""
    record = Recorder(due=3)
    with pytest.raises(UserError) as error:
        loop(record, Data(), steps=40, log_every=log_every, eval_every=100).run(start())
    said = str(error.value)
    assert "step 14: 10 steps in a row were not finite, from step 5 on (loss)" in said
    assert "samples were a, b" in said and "optim.learning_rate" in said
    assert "the last checkpoint is 15" in said or "the last checkpoint is 12" in said
    assert "step 5 is skipped: loss not finite (1 in a row, 1 in all)" in capsys.readouterr().err
    assert record.events[-1] == ("flush",)


def test_images_per_second_are_those_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of 2 s a batch and 5 s an evaluation, which does not count as training."""
    now = [0.0]
    monkeypatch.setattr("codi_jax.train.pace.time.monotonic", lambda: now[0])

    class Slow(Data):
        def __next__(self) -> dict[str, np.ndarray]:
            now[0] += 2.0
            return super().__next__()

    def evaluate(step: int, state: TrainState) -> dict[str, float]:
        now[0] += 5.0
        return {}

    record = Recorder(due=100)
    loop(record, Slow(), steps=4, log_every=1, evaluate=evaluate).run(start())
    rates = [e[2]["images_per_s"] for e in record.events if e[0] == "scalars" and e[2]]
    assert rates == [1.0] * 4  # a batch of two in two seconds


class Watched:
    """A metric that notes which step the host waits for, and how many it had started by then."""

    def __init__(self, step: int, value: float, record: list[tuple[int, int]], started: list[int]):
        self.step, self.value, self.record, self.started = step, value, record, started

    def __float__(self) -> float:
        self.record.append((self.step, self.started[0]))
        return self.value

    def is_ready(self) -> bool:
        return False


class WatchedStep:
    """In place of a jitted step: its metrics are :class:`Watched`."""

    jaxpr = jax.make_jaxpr(lambda x: x)(1.0)

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []
        self.started = [0]

    def trace(self, *args: Any) -> "WatchedStep":
        return self

    lower = compile = trace

    def __call__(self, state: TrainState, *args: Any) -> Any:
        self.started[0] += 1
        step = self.started[0]
        metrics = {
            name: Watched(step, value, self.read, self.started)
            for name, value in {"loss": 1.0, SKIPPED: 0.0}.items()
        }
        return state, metrics


def test_the_host_never_waits_for_the_step_that_it_started_last() -> None:
    """Nothing goes to the devices but the batches, and no line of metrics stops them."""
    record, step = Recorder(due=100), WatchedStep()
    state, data = start(), Data()
    run = loop(record, data, steps=12, log_every=3, eval_every=100, step=step)
    with (
        jax.transfer_guard("disallow"),  # batches are sent explicitly
        pytest.raises(AssertionError, match="evaluated"),
    ):
        dataclasses.replace(run, evaluate=_evaluated).run(state)
    inside = [(read, started) for read, started in step.read if started < 12]
    assert {read for read, _ in inside} >= set(range(1, 10))
    assert all(started > read for read, started in inside), inside
    assert [event[1] for event in record.events if event[0] == "scalars"] == [3, 6, 9, 12]


def _evaluated(step: int, state: TrainState) -> dict[str, float]:
    raise AssertionError("evaluated")

"""A profile of the loop's steps, as TensorBoard finds it."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from codi_jax.train.profile import WARM_UP, Profile

METRICS = {"loss": jnp.zeros(())}


def run(profile: Profile, start: int, last: int) -> None:
    for step in range(start, last):
        profile.before(step, start, last)
        profile.after(step + 1, METRICS)
    profile.close()


def test_the_steps_after_the_warm_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events: list[object] = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda path: events.append(path))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: events.append("stop"))
    profile = Profile(tmp_path, 3)
    for step in range(10, 30):
        profile.before(step, 10, 30)
        if len(events) == 1:
            events.append(step)
        profile.after(step + 1, METRICS)
        if events[-1:] == ["stop"]:
            events.append(step + 1)
    assert events == [tmp_path, 10 + WARM_UP, "stop", 10 + WARM_UP + 3]
    events.clear()
    run(Profile(tmp_path, 3), 0, 4)  # a short run: all but the first, which is compiled
    assert events == [tmp_path, "stop"]
    events.clear()
    run(Profile(tmp_path, 0), 0, 30)
    assert events == []


def test_what_tensorboard_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(Profile(tmp_path, 2), 0, 4)
    (trace,) = (tmp_path / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 0
    assert f"tensorboard --logdir={tmp_path}" in capsys.readouterr().err

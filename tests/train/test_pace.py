"""Rates by a clock of our own."""

from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import pytest

from codi_jax.train.guard import LAG
from codi_jax.train.pace import Pace

H100 = cast(Any, SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3"))


class Pending:
    """Metrics of a step that is still computed."""

    def is_ready(self) -> bool:
        return False


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [0.0]
    monkeypatch.setattr("codi_jax.train.pace.time.monotonic", lambda: clock[0])
    return clock


def test_steps_that_are_done_count(now: list[float]) -> None:
    pace = Pace(64, H100)
    pace.flops = 989e12  # a second of the peak
    pace.restart(100)
    now[0] = 40.0
    rates = pace.read(120)  # so 120 - LAG are done
    assert rates["images_per_s"] == pytest.approx(64 * (20 - LAG) / 40)
    assert rates["mfu"] == pytest.approx((20 - LAG) / 40)
    assert rates["tflops_per_device"] == pytest.approx(989 * (20 - LAG) / 40)
    assert rates["data_wait"] == 0
    now[0] = 50.0
    assert pace.read(140)["images_per_s"] == 64 * 20 / 10


def test_what_steps_wait_for_data(now: list[float]) -> None:
    pace, done = Pace(1, H100), {"loss": jnp.zeros(())}
    now[0] = 3.0
    pace.fetched(0.0, {"loss": Pending()})  # the devices were at work all the time
    now[0] = 5.0
    pace.fetched(4.0, done)
    now[0] = 10.0
    assert pace.read(10)["data_wait"] == pytest.approx(0.1)
    now[0] = 20.0
    assert pace.read(20)["data_wait"] == 0

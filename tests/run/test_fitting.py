"""Batches that fit, and changes that make a step fit."""

import jax
import pytest

from codi_jax.parallel.mesh import make_mesh
from codi_jax.run import fitting
from codi_jax.run.fitting import MOST, Need, changed, find_batch, largest, need, remedies
from codi_jax.run.plan import Plan, plan
from codi_jax.typing import UserError
from tests.smallest import smallest


@pytest.mark.parametrize("most", [1, 2, 3, 7, 40, MOST])
@pytest.mark.parametrize("bend", [0.0, 0.3])
def test_the_largest_is_found_in_few_measurements(most: int, bend: float) -> None:
    """Of a straight line, and of one that is a little bent."""
    measured = []

    def size(count: int) -> float:
        return 100 + 10 * count ** (1 - bend / 10)

    limit = size(most) + 1

    def measure(count: int) -> Need:
        measured.append(count)
        return Need(bytes=int(size(count)), fits=size(count) <= limit)

    assert largest(measure, limit)[0] == most
    assert len(measured) == len(set(measured)) <= 8


def test_where_nothing_fits_one_is_measured() -> None:
    assert largest(lambda count: Need(bytes=count, fits=False), 0) == (1, Need(bytes=1, fits=False))


@pytest.fixture
def planned() -> Plan:
    config = smallest("codi", batch_size=8, mesh__data=-1)
    return plan(config, make_mesh(data=2, fsdp=1, devices=jax.devices()[:2]))


def test_a_changed_plan_keeps_the_devices(planned: Plan) -> None:
    other = changed(planned, mesh__fsdp=2, model__remat="blocks", batch_size=4)
    assert dict(other.mesh.shape) == {"data": 1, "fsdp": 2}
    assert list(other.mesh.devices.flat) == list(planned.mesh.devices.flat)
    assert (other.config.batch_size, other.config.model.remat) == (4, "blocks")
    assert (planned.config.batch_size, planned.config.model.remat) == (8, "none")


def fake_need(planned: Plan) -> Need:
    """A step of 10 bytes a picture, 100 of parameters; no device has more than 75."""
    config = planned.config
    size = 100 // planned.mesh.shape["fsdp"] + 10 * config.batch_size // config.accumulation
    size -= 40 if config.model.remat == "everything" else 0
    return Need(bytes=size, fits=size <= 95)


def test_remedies_are_tried_one_by_one(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "need", fake_need)
    monkeypatch.setattr(fitting, "gib", lambda size: str(size))
    assert remedies(planned) == [
        "config.model.remat=everything: 140 a device, it does not fit",
        "config.mesh.fsdp=2: 130 a device, it does not fit",
        "config.accumulation=4: 120 a device, it does not fit",
        "config.batch_size=2: 120 a device, it does not fit",
    ]
    smaller = changed(planned, batch_size=4)
    assert remedies(smaller)[:2] == [
        "config.model.remat=everything: 100 a device, it does not fit",
        "config.mesh.fsdp=2: 90 a device, it fits",
    ]


def test_the_batch_of_a_plan(
    planned: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def as_many(planned: Plan) -> Need:
        return Need(bytes=planned.config.batch_size, fits=planned.config.batch_size <= 11)

    monkeypatch.setattr(fitting, "need", as_many)
    monkeypatch.setattr(fitting, "device_memory", lambda device: 11)
    assert find_batch(planned) == (10, Need(bytes=10, fits=True))
    assert "batch_size=12: 0.00 GiB a device: too much" in capsys.readouterr().err
    monkeypatch.setattr(fitting, "need", lambda p: Need(bytes=12, fits=False))
    with pytest.raises(UserError, match="one picture a device needs"):
        find_batch(planned)


@pytest.mark.slow
def test_need_is_what_the_compiler_says() -> None:
    found = need(plan(smallest("pe_codi")))
    assert found.fits and found.bytes > 2**16

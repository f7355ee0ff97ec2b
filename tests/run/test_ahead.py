"""A step compiled and not run: its figures, and what is said of them."""

import dataclasses
import json

import jax

from codi_jax.parallel.collectives import Traffic
from codi_jax.parallel.mesh import make_mesh
from codi_jax.run.ahead import Ahead, compile_ahead
from codi_jax.run.plan import plan
from tests.smallest import smallest

STEP = Ahead(
    devices=16,
    device_kind="TPU v5 lite",
    batch_size=64,
    flops=16 * 197e12,  # a second of the peak
    arguments=2 * 2**30,
    peak=20 * 2**30,
    traffic={"all-gather": Traffic(3, 5 * 2**20)},
    compile_seconds=60.0,
    compiler_memory=2**31,
)


def test_bounds_are_of_computation_or_of_memory() -> None:
    assert STEP.seconds == 1.0
    idle = dataclasses.replace(STEP, flops=0.0)
    assert idle.seconds == 4 * 2**30 / 819e9
    assert dataclasses.replace(STEP, device_kind="cpu").seconds is None


def test_the_report_says_what_fits_and_what_would() -> None:
    text = STEP.text()
    assert "20.00 GiB of 16.00 GiB a device: it does not fit" in text
    for remedy in ("config.model.remat=True", "config.batch_size (64)", "config.mesh.fsdp"):
        assert remedy in text
    assert "all-gather: 3, 5 MiB a device" in text and "64 pictures/s" in text
    fitting = dataclasses.replace(STEP, peak=15 * 2**30).text()
    assert "it fits" in fitting and "remat" not in fitting
    assert json.loads(json.dumps(STEP.to_json()))["bound_seconds"] == 1.0


def test_a_step_of_this_machine() -> None:
    config = smallest("pe_codi", mesh__fsdp=2)
    planned = plan(config, make_mesh(data=1, fsdp=2, devices=jax.devices()[:2]))
    quick, whole = compile_ahead(planned, quick=True), compile_ahead(planned)
    assert quick.peak is None and quick.flops == whole.flops > 0
    assert whole.peak is not None and whole.peak >= whole.arguments > 0
    assert whole.traffic["all-gather"].count and whole.compile_seconds
    assert "collective-permute" not in whole.traffic
    assert "peak memory" in whole.text() and "compiled in" not in quick.text()

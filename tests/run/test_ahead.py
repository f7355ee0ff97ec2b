"""A step compiled and not run: its figures, and what is said of them."""

import dataclasses
import importlib.util
import json

import jax
import pytest

from codi_jax.parallel.collectives import Gathers, Traffic
from codi_jax.parallel.mesh import make_mesh
from codi_jax.run.ahead import Ahead, compile_ahead, plan_ahead
from codi_jax.run.ahead_sampler import sampler_ahead
from codi_jax.run.plan import plan
from codi_jax.train.flops import jaxpr_flops
from codi_jax.typing import UserError
from configs import autoencoder
from tests.smallest import smallest

STEP = Ahead(
    devices=16,
    device_kind="TPU v5 lite",
    batch_size=64,
    flops=16 * 197e12,  # a second of the peak
    needed_flops=12 * 197e12,
    arguments=2 * 2**30,
    memory=16 * 2**30,
    peak=20 * 2**30,
    fits=False,
    windowed=3,
    traffic={"all-gather": Traffic(3, 5 * 2**20)},
    gathers=Gathers(arguments=2, most=1, computed=1),
    compile_seconds=60.0,
    compiler_memory=2**31,
)


def test_bounds_are_of_computation_or_of_memory() -> None:
    assert STEP.seconds == 1.0
    idle = dataclasses.replace(STEP, flops=0.0)
    assert idle.seconds == 4 * 2**30 / 819e9
    assert dataclasses.replace(STEP, device_kind="cpu").seconds is None


def test_the_report() -> None:
    text = STEP.text()
    assert "20.00 GiB of 16.00 GiB a device: it does not fit" in text
    told = "3, 5 MiB a device, at most 1 of each of 2 arguments, 1 of what is computed"
    assert f"all-gather: {told}\n" in text and "64 pictures/s, MFU 75%" in text
    assert "loops over slices of a kernel: 3" in text and "1.33 times what is needed" in text
    assert "it fits" in dataclasses.replace(STEP, peak=15 * 2**30, fits=True).text()
    figures = json.loads(json.dumps(STEP.to_json()))
    assert (figures["bound_seconds"], figures["bound_mfu"]) == (1.0, 0.75)


@pytest.mark.slow
def test_a_step_of_this_machine() -> None:
    config = smallest("pe_codi", mesh__fsdp=2)
    planned = plan(config, make_mesh(data=1, fsdp=2, devices=jax.devices()[:2]))
    quick, whole = compile_ahead(planned, quick=True), compile_ahead(planned)
    assert quick.peak is None and quick.flops == whole.flops > 0
    assert whole.peak is not None and whole.peak >= whole.arguments > 0
    assert whole.traffic["all-gather"].count and whole.compile_seconds
    assert whole.gathers.most <= 2 and whole.gathers.arguments > 40  # forward, and backward again
    assert "collective-permute" not in whole.traffic and whole.windowed == 0
    assert whole.fits and whole.flops == whole.needed_flops
    assert "peak memory" in whole.text() and "compiled in" not in quick.text()


def test_what_is_computed_again_is_not_needed() -> None:
    plain, again = (
        plan(smallest("codi", model__remat=policy, data__size=32)) for policy in ("none", "blocks")
    )
    assert jaxpr_flops(again.traced.jaxpr) > 1.05 * again.needed_flops
    assert again.needed_flops == plain.needed_flops == jaxpr_flops(plain.traced.jaxpr)


def test_the_sampler_of_the_plan() -> None:
    planned = plan(smallest("pe_codi"))
    one, four = (sampler_ahead(planned, steps, quick=True) for steps in (1, 4))
    twice = sampler_ahead(planned, 4, batch_size=2, quick=True)
    call = (four.flops - one.flops) / 3  # the condition and the autoencoder are used once
    assert 0 < call < one.flops
    assert twice.flops == pytest.approx(2 * four.flops) and twice.devices == 1
    assert twice.fits is None and "a sample of 4 steps" in twice.text()


@pytest.mark.slow
def test_the_sampler_is_compiled_as_a_whole() -> None:
    ahead = sampler_ahead(plan(smallest("pe_codi")), 4)
    assert ahead.fits and ahead.peak and ahead.peak > ahead.arguments > 0


def test_an_autoencoder_has_no_sampler() -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    with pytest.raises(UserError, match="there is no sampler"):
        sampler_ahead(plan(config), 4, quick=True)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e '.[aot]' has TPU's compiler"
)
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
def test_a_reduced_model_on_other_tpus(topology: str) -> None:
    config = smallest("pe_codi", mesh__data=-1, mesh__fsdp=4)
    ahead = compile_ahead(plan_ahead(config, topology))
    assert ahead.devices == 4 and ahead.chip is not None and ahead.seconds
    assert ahead.fits and ahead.peak and ahead.peak >= ahead.arguments
    assert ahead.traffic["all-gather"].count >= ahead.gathers.arguments > 40
    assert ahead.gathers.most == 1 and ahead.gathers.computed == 0 and ahead.windowed == 0

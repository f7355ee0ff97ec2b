"""How programs are compiled, and programs that devices have no memory for."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import pytest

from codi_jax.parallel import compiling
from codi_jax.parallel.chips import CHIPS
from codi_jax.parallel.compiling import (
    DoesNotFit,
    compile_traced,
    compile_with_low_effort,
    compiler_options,
    device_memory,
    jit_noise,
)


@pytest.fixture(autouse=True)
def no_options_are_remembered() -> Iterator[None]:
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_convolutions_on_cpus_are_not_left_to_ynnpack() -> None:
    options = compiler_options(jax.devices()[0])
    x, kernel = jnp.zeros((4, 8, 8, 16)), jnp.zeros((3, 3, 16, 16))

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    text = jax.jit(convolved, compiler_options=options).lower(x, kernel).compile().as_text()
    assert options and "convolution(" in text and "ynn_fusion" not in text


def test_other_devices_and_other_versions_of_xla_choose_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Chip:
        platform = "tpu"

    assert compiler_options(cast(Any, Chip())) is None
    monkeypatch.setattr(compiling, "_ON_CPUS", {"xla_cpu_no_such_option": ""})
    assert compiler_options(jax.devices()[0]) is None


def test_drawing_noise_is_compiled_in_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(jax, "jit", lambda f, **options: asked.update(options) or f)
    key = jax.random.key(0)
    noise = jit_noise.__wrapped__(jax.random.normal, "shape")(key, (3, 2))
    assert noise.shape == (3, 2)
    assert asked["compiler_options"] == {"xla_backend_optimization_level": 1}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jit_noise.__wrapped__(jax.random.normal, "shape")
    assert asked["compiler_options"] is None


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (28.00G) exceeds available HBM (15.75G).",
            28 * 2**30,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 17.50G of 15.75G hbm.",
            int(17.5 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: something else", None),
    ],
)
def test_a_compiler_that_gives_up(message: str, needed: int | None) -> None:
    with pytest.raises(DoesNotFit) as error:
        compile_traced(_failing(message))
    assert error.value.needed == needed


def test_other_errors_stay() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compile_traced(_failing("INTERNAL: a bug"))


def _failing(message: str) -> Any:
    def fail() -> None:
        raise jax.errors.JaxRuntimeError(message)

    return SimpleNamespace(lower=lambda: SimpleNamespace(compile=fail))


def test_the_memory_of_a_device() -> None:
    def device(kind: str, limit: int | None) -> Any:
        statistics = None if limit is None else {"bytes_limit": limit}
        return cast(Any, SimpleNamespace(device_kind=kind, memory_stats=lambda: statistics))

    assert device_memory(device("NVIDIA H100 80GB HBM3", 7)) == 7
    assert device_memory(device("TPU v5 lite", None)) == CHIPS["TPU v5 lite"].memory
    assert device_memory(jax.devices()[0]) > 2**28  # half of this machine's


def test_low_effort_is_a_setting_of_jax() -> None:
    names = ("jax_exec_time_optimization_effort", "jax_memory_fitting_effort")
    before = [getattr(jax.config, name) for name in names]
    try:
        compile_with_low_effort()
        assert [getattr(jax.config, name) for name in names] == [-1.0, -1.0]
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)

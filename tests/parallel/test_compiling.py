"""Programs that devices have no memory for."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import pytest

from codi_jax.parallel.chips import CHIPS
from codi_jax.parallel.compiling import (
    DoesNotFit,
    compile_traced,
    compile_with_low_effort,
    device_memory,
)


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

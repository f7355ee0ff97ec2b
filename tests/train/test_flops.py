"""FLOPs of a known product; utilisation from them."""

from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import pytest

from codi_jax.train.flops import step_flops, utilisation


def test_flops_of_a_matrix_product() -> None:
    a = jnp.ones((64, 128))
    compiled = jax.jit(lambda x: x @ x.T).lower(a).compile()
    assert step_flops(compiled) == pytest.approx(2 * 64 * 64 * 128, rel=0.05)


def test_utilisation() -> None:
    device = cast(Any, SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3"))
    assert utilisation(989e12, 2.0, device) == {"tflops_per_device": 494.5, "mfu": 0.5}
    cpu = cast(Any, SimpleNamespace(device_kind="cpu"))
    assert utilisation(1e12, 0.5, cpu) == {"tflops_per_device": 2.0}
    assert utilisation(None, 0.5, cpu) == {}

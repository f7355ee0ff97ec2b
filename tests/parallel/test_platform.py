"""What the networks compute in on which machine."""

import jax
import jax.numpy as jnp
import pytest

from codi_jax.parallel.platform import compute_dtype
from codi_jax.typing import UserError


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("cpu", jnp.float32), ("gpu", jnp.bfloat16), ("tpu", jnp.bfloat16)],
)
def test_auto_follows_the_machine(
    backend: str, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert compute_dtype("auto") == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_dtype_by_its_name(name: str) -> None:
    assert compute_dtype(name) == jnp.dtype(name)


@pytest.mark.parametrize("name", ["float16", "fp32", "", "Auto"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"dtype='{name}': choose auto, float32 or bfloat16"):
        compute_dtype(name)

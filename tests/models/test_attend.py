"""Long attention: the numbers of the plain one, without its matrix of scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models import attend as module
from codi_jax.models.attend import attend
from tests.jaxprs import shapes_in


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> tuple[jax.Array, ...]:
    """q of 50, k and v of 40 tokens, where 32 are long and chunks have 16 queries."""
    monkeypatch.setattr(module, "LONG", 32)
    monkeypatch.setattr(module, "CHUNK", 16)
    rng = np.random.default_rng(0)
    sizes = ((2, 50, 3, 8), (2, 40, 3, 8), (2, 40, 3, 8))
    return tuple(jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes)


def whole_scores(function: Any, *args: Any) -> bool:
    """Whether an array is as large as the scores of all queries and keys."""
    shapes = shapes_in(jax.make_jaxpr(function)(*args))
    size = args[0].shape[1] * args[1].shape[1]
    return any(np.prod(shape[-2:]) >= size for shape in shapes if len(shape) >= 2)


def squared(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.sum(attend(q, k, v) ** 2)


def test_values_and_gradients_of_the_plain_attention(inputs: tuple[jax.Array, ...]) -> None:
    plain = jax.nn.dot_product_attention(*inputs)
    np.testing.assert_allclose(attend(*inputs), plain, atol=1e-6)
    expected = jax.grad(lambda *x: jnp.sum(jax.nn.dot_product_attention(*x) ** 2), (0, 1, 2))
    found = jax.grad(squared, (0, 1, 2))
    for a, b in zip(found(*inputs), expected(*inputs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_no_matrix_of_all_scores(inputs: tuple[jax.Array, ...]) -> None:
    assert whole_scores(jax.nn.dot_product_attention, *inputs)  # what is looked for is found
    assert not whole_scores(attend, *inputs)
    assert not whole_scores(jax.grad(squared, (0, 1, 2)), *inputs)


def test_short_sequences_are_left_to_xla(inputs: tuple[jax.Array, ...]) -> None:
    q, k, v = (x[:, :31] for x in inputs)
    np.testing.assert_array_equal(attend(q, k, v), jax.nn.dot_product_attention(q, k, v))
    assert "scan" not in str(jax.make_jaxpr(attend)(q, k, v))


def test_cudnn_takes_half_precision_on_gpus(
    inputs: tuple[jax.Array, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(q: jax.Array, k: jax.Array, v: jax.Array, implementation: str | None = None) -> Any:
        asked.append(implementation)
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", spy)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    half = [x.astype(jnp.bfloat16) for x in inputs]
    attend(*half[:3])
    assert asked == ["cudnn"]
    attend(*inputs[:3])  # float32 has no kernel there
    assert asked[1] is None

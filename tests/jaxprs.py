"""What is in a jaxpr."""

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr


def shapes_in(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[tuple[int, ...]]:
    """Shapes of everything that is computed on the way."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for equation in inner.eqns:
        yield from (var.aval.shape for var in equation.outvars)
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, ClosedJaxpr | Jaxpr):
                    yield from shapes_in(item)

"""What is in a jaxpr."""

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr

from codi_jax.train.flops import inner_jaxprs


def shapes_in(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[tuple[int, ...]]:
    """Shapes of everything that is computed on the way."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for equation in inner.eqns:
        yield from (var.aval.shape for var in equation.outvars)
        for called in inner_jaxprs(equation.params):
            yield from shapes_in(called)

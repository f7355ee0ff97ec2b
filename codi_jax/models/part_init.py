"""How the parameters of one part of a model are drawn."""

import dataclasses
from collections.abc import Callable, Hashable, Iterable

from jaxtyping import Array, Key

from codi_jax.typing import Params, PyTree


@dataclasses.dataclass(frozen=True)
class PartInit:
    """A function of a key. Equal ones draw alike, so one compiled program serves them.

    Attributes:
        function: of the architecture, a key, and the parts that have been drawn or read.
        architecture: of the part.
    """

    function: Callable[..., Params]
    architecture: Hashable

    def __call__(self, key: Key[Array, ""], drawn: Params) -> Params:
        """Random parameters, float32.

        Args:
            key: of the random numbers, the same for all parts of a model.
            drawn: the parts before this one, for an adapter that starts as a copy.
        """
        return self.function(self.architecture, key, drawn)


def draw_parts(inits: Iterable[tuple[str, PartInit]], key: Key[Array, ""]) -> Params:
    """Random parameters of these parts, float32; each may read those before it."""
    params: dict[str, PyTree] = {}
    for part, init in inits:
        params[part] = init(key, params)
    return params

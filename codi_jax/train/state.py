"""What a run changes: step, trainable parameters, averages, optimiser state."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Int

from codi_jax.typing import Array, Params, UserError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The donated argument of the training step; the frozen parameters are apart from it.

    Attributes:
        step: int32 scalar, the number of steps done.
        trainable: the online parameters theta that are trained, float32 nested dicts.
        ema: moving averages of ``trainable`` by name: "target" is theta- of algorithm 1, "eval"
            the slower one that is sampled from.
        opt: the optimiser's state.
    """

    step: Int[Array, ""]
    trainable: Params
    ema: dict[str, Params]
    opt: optax.OptState


def create_state(
    trainable: Params, optimizer: optax.GradientTransformation, ema_names: tuple[str, ...]
) -> TrainState:
    """The state before the first step: every average starts as the parameters themselves.

    Args:
        trainable: float32 nested dicts.
        optimizer: of the run.
        ema_names: names of the averages.

    Raises:
        UserError: parameters that are not float32. In bfloat16 small updates round to nothing
            and a trained checkpoint would equal its start.
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(trainable)[0]:
        if leaf.dtype != jnp.float32:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise UserError(f"parameter {name} is {leaf.dtype}; trained weights must be float32.")
    copies = {name: jax.tree.map(jnp.copy, trainable) for name in ema_names}
    return TrainState(jnp.zeros((), jnp.int32), trainable, copies, optimizer.init(trainable))

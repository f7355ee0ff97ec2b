"""What is kept of a network's computation for its gradient, and what is computed again.

========== ======================== ===============================================================
policy     kept                     computed again
========== ======================== ===============================================================
none       everything               nothing
dots       products, convolutions   the rest of a block: norms, activations, attention's scores
blocks     what the blocks read     the inside of one block at a time
everything what the network reads   the network once, then the inside of one layer at a time
========== ======================== ===============================================================

From the top to the bottom they take less memory and more time. They change no number but by
rounding. The pyramid of a ControlNet, cheap to compute and large to keep, is computed again by all
but "none".
"""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax

from codi_jax.typing import Array, check_choice

#: From the most memory to the least.
POLICIES = ("none", "dots", "blocks", "everything")
#: What configs said before the policies had names.
_FORMER = {"False": "none", "True": "blocks"}
_CONVOLUTION = jax.lax.conv_general_dilated_p

Module = TypeVar("Module", bound=type[nn.Module])


def remat_policy(value: str | bool) -> str:
    """The policy that a config names.

    Args:
        value: one of :data:`POLICIES`; True and False of older configs are "blocks" and "none".

    Raises:
        UserError: no such policy.
    """
    name = _FORMER.get(str(value), str(value))
    check_choice("config.model.remat", name, POLICIES)
    return name


def remat_block(module: Module, policy: str) -> Module:
    """The class of a block, under ``policy``."""
    if policy == "dots":
        return nn.remat(module, policy=_keep_products)
    return nn.remat(module) if policy == "blocks" else module


def remat_layer(module: Module, policy: str) -> Module:
    """The class of a layer inside a block, under ``policy``."""
    return nn.remat(module) if policy == "everything" else module


def remat_pyramid(module: Module, policy: str) -> Module:
    """The class of what reduces a picture to the size of latents, under ``policy``."""
    return module if policy == "none" else nn.remat(module)


def remat_network(call: Callable[..., Array], policy: str) -> Callable[..., Array]:
    """A whole call of a network, under ``policy``."""
    return jax.checkpoint(call) if policy == "everything" else call


def _keep_products(primitive: Any, *args: Any, **params: Any) -> bool:
    """Products with weights, and convolutions; not attention's scores, which have a batch."""
    if primitive is _CONVOLUTION:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)

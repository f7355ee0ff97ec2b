"""What a step computes, counted from its jaxpr, and how well a device is used.

Matrix products and convolutions are counted, two operations for each multiplication and its
addition. Taps of a convolution that fall on padding are left out, as in XLA's own count. That count
exists on CPUs alone: on a GPU it does not see cuDNN's convolutions, and before compilation it is
absent on GPUs and TPUs.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from codi_jax.models import winograd
from codi_jax.parallel.chips import chip_of


def count_flops(function: Callable[..., object], *args: object) -> float:
    """FLOPs of a call.

    Args:
        function: traced, not run; it may be jitted.
        args: arrays, or their shapes (``jax.ShapeDtypeStruct``).

    Returns:
        FLOPs of all devices together.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*args))


def jaxpr_flops(jaxpr: ClosedJaxpr | Jaxpr) -> float:
    """FLOPs of the matrix products and convolutions of a jaxpr, on all devices together.

    A loop's body counts as often as it runs (a ``while``, whose end is not known, once); of a
    condition's branches the dearest counts. What ``remat`` computes twice counts twice.
    """
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_equation_flops(equation) for equation in inner.eqns)


def _equation_flops(equation: JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_flops(equation)
    if name == "conv_general_dilated":
        return _conv_flops(equation)
    if str(params.get("name", "")).startswith(winograd.NAME):
        return _winograd_flops(equation)
    inner = [jaxpr_flops(jaxpr) for jaxpr in inner_jaxprs(params)]
    if name == "cond":
        return max(inner)
    repeats = params["length"] if name == "scan" else 1
    if name == "shard_map":  # its body is one device's share
        repeats = math.prod(params["mesh"].shape.values())
    return repeats * sum(inner)


def inner_jaxprs(params: dict[str, object]) -> Iterator[ClosedJaxpr | Jaxpr]:
    """What an equation with these parameters calls: a loop's body, a condition's branches."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def _dot_flops(equation: JaxprEqn) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return 2.0 * math.prod(out) * math.prod(lhs[i] for i in contracted)


def _conv_flops(equation: JaxprEqn) -> float:
    p, out = equation.params, _shape(equation.outvars[0])
    lhs, rhs = map(_shape, equation.invars)
    numbers = p["dimension_numbers"]
    taps = 1.0
    for i, (low, _) in enumerate(p["padding"]):
        taps *= _taps(
            size=lhs[numbers.lhs_spec[2 + i]],
            window=rhs[numbers.rhs_spec[2 + i]],
            out=out[numbers.out_spec[2 + i]],
            stride=p["window_strides"][i],
            low=low,
            hole=p["lhs_dilation"][i],
            reach=p["rhs_dilation"][i],
        )
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2.0 * taps * batch * features * rhs[numbers.rhs_spec[1]]


def _winograd_flops(equation: JaxprEqn) -> float:
    """Those of the convolution: what a step computes is the same on every device."""
    batch, *sides, channels = _shape(equation.invars[0])
    taps = math.prod(3 * side - 2 for side in sides)
    return 2.0 * batch * taps * channels * _shape(equation.outvars[0])[-1]


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def _taps(*, size: int, window: int, out: int, stride: int, low: int, hole: int, reach: int) -> int:
    """Pairs of an output and a tap of the window, along one axis, that meet a true input."""
    at = np.arange(out)[:, None] * stride + np.arange(window) * reach - low
    return int(np.sum((at >= 0) & (at <= (size - 1) * hole) & (at % hole == 0)))


def utilisation(flops: float, seconds: float, device: jax.Device) -> dict[str, float]:
    """How well a device is used.

    Args:
        flops: of one step on one device.
        seconds: that one step takes.
        device: any device of the mesh.

    Returns:
        ``tflops_per_device``, and ``mfu`` (the share of the peak, in [0, 1]) where the device's
        peak is known.
    """
    rate = flops / seconds
    result = {"tflops_per_device": rate / 1e12}
    chip = chip_of(device.device_kind)
    if chip is not None:
        result["mfu"] = rate / chip.flops
    return result

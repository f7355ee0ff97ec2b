"""What devices send each other, read from a compiled program's text."""

import dataclasses
import math
import re

#: Kinds of collectives, as HLO names them.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
_OPERATION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind.

    Attributes:
        count: how many.
        bytes: of their results on one device.
    """

    count: int = 0
    bytes: int = 0


def collectives(hlo: str) -> dict[str, Traffic]:
    """The collectives of a program by kind, those of a loop's body once.

    Args:
        hlo: the text of a compiled program.
    """
    found: dict[str, Traffic] = {}
    for line in hlo.splitlines():
        match = _OPERATION.search(line)
        if match:
            before = found.get(match[2], Traffic())
            found[match[2]] = Traffic(before.count + 1, before.bytes + _largest(match[1]))
    return {kind: found[kind] for kind in KINDS if kind in found}


def windowed_loops(hlo: str) -> int:
    """Loops that XLA made of a convolution or product whose operand is split over devices.

    Each turn of such a loop sends a slice on and multiplies with it: a while loop in whose body
    an array is permuted among the devices.

    Args:
        hlo: the text of a compiled or scheduled program.
    """
    bodies = set(re.findall(r" while\(.*?body=%?([\w.-]+)", hlo))
    found = 0
    for block in re.split(r"\n(?=\S)", hlo):
        name = re.match(r"%?([\w.-]+) \(", block)
        if name and name[1] in bodies and " collective-permute" in block:
            found += 1
    return found


def _largest(shapes: str) -> int:
    """Bytes of the largest array: an asynchronous start names its operands, too."""
    sizes = [
        math.prod(int(n) for n in numbers.split(",") if n) * _bits(dtype) // 8
        for dtype, numbers in _ARRAY.findall(shapes)
    ]
    return max(sizes, default=0)


def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return _BITS.get(dtype) or int(digits[0] if digits else 8)

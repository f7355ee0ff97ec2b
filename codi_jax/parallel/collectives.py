"""What devices send each other, read from a compiled program's text."""

import dataclasses
import re
from collections import Counter

from codi_jax.parallel.hlo import Operation, Program, array_bytes

#: Kinds of collectives, as HLO names them.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
#: What XLA calls a sum over devices of which each keeps its part, on TPUs: a fusion.
_SCATTERED = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind.

    Attributes:
        count: how many; one may send several arrays.
        bytes: of their results on one device.
    """

    count: int = 0
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Gathers:
    """All-gathers of one call of a program.

    Attributes:
        arguments: of the program that are gathered: kernels, and their averages.
        most: all-gathers of one and the same argument, in all passes together.
        computed: all-gathers of what is made of several arguments, such as activations.
    """

    arguments: int = 0
    most: int = 0
    computed: int = 0


def collectives(program: Program) -> dict[str, Traffic]:
    """The collectives of a program by kind, those of a loop's body once."""
    found: dict[str, Traffic] = {}
    for computation, operation, kind in _sending(program):
        shape = operation.shape
        if kind == "reduce-scatter" and computation.startswith(_SCATTERED):
            inside = program.computations[computation]
            shape = inside.operations[inside.root].shape
        before = found.get(kind, Traffic())
        size = _received(shape, operation.kind)
        found[kind] = Traffic(before.count + 1, before.bytes + size)
    return {kind: found[kind] for kind in KINDS if kind in found}


def gathers(program: Program) -> Gathers:
    """Whose all-gathers they are: those of a program's arguments, its kernels, and others."""
    counts: Counter[str | None] = Counter()
    for computation, operation, kind in _sending(program):
        if kind == "all-gather":
            counts.update(program.argument(computation, name) for name in operation.operands)
    computed = counts.pop(None, 0)
    return Gathers(len(counts), max(counts.values(), default=0), computed)


def windowed_loops(program: Program) -> int:
    """Loops that XLA made of a convolution or product whose operand is split over devices.

    Each turn of such a loop sends a slice on and multiplies with it: a while loop in whose body
    an array is permuted among the devices.
    """
    bodies = {
        match[1]
        for _, operation in program
        if operation.kind == "while" and (match := re.search(r"body=%?([\w.-]+)", operation.rest))
    }
    return len(
        {
            computation
            for computation, operation in program
            if computation in bodies and operation.kind.startswith("collective-permute")
        }
    )


def _sending(program: Program) -> list[tuple[str, Operation, str]]:
    """Collectives with their computations and kinds.

    One that is spread over several fusions, to go on while others compute, is there once.
    """
    found: list[tuple[str, Operation, str]] = []
    spread = set()
    for computation, operation in program:
        kind = operation.kind.removesuffix("-start")
        if kind not in KINDS:
            continue
        if computation.startswith(_SCATTERED):
            kind = "reduce-scatter"
        elif computation in program.callers:
            part = kind, operation.number("channel_id"), re.sub(r"{.*?}", "", operation.shape)
            if part in spread:
                continue
            spread.add(part)
        found.append((computation, operation, kind))
    return found


def _received(shape: str, kind: str) -> int:
    """Bytes of a result; that of most asynchronous starts names what is sent first."""
    sizes = array_bytes(shape)
    if not kind.endswith("-start") or kind == "all-reduce-start":
        return sum(sizes)
    if "), (" in shape:  # several arrays: what is sent, what is received
        return sum(array_bytes(shape.split("), (", 1)[1]))
    return max(sizes, default=0)

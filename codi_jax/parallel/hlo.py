"""A compiled program's text (HLO), read as operations."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.+?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.-]+)")
_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One line of a computation.

    Attributes:
        name: of its result.
        shape: of its result, a text; a tuple's has parentheses.
        kind: such as "fusion".
        operands: names of other operations of the computation.
        rest: the text after the opening parenthesis.
    """

    name: str
    shape: str
    kind: str
    operands: tuple[str, ...]
    rest: str

    @property
    def called(self) -> str | None:
        """The computation that a fusion or a call stands for."""
        match = _CALLED.search(self.rest) if self.kind in ("fusion", "call") else None
        return match[1] if match else None

    def number(self, attribute: str) -> int | None:
        """Of ``attribute=NUMBER``, or None."""
        match = re.search(rf"\b{attribute}=(\d+)", self.rest)
        return int(match[1]) if match else None


@dataclasses.dataclass
class Computation:
    """Operations by name, and the name of the one whose result is the computation's."""

    operations: dict[str, Operation] = dataclasses.field(default_factory=dict)
    root: str = ""


class _Value(NamedTuple):
    """The result of an operation, or the array of this number of it."""

    computation: str
    name: str
    part: int | None


class Program:
    """Computations by name."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        current = Computation()
        for line in text.splitlines():
            if not line.startswith((" ", "\t")):
                header = _HEADER.match(line)
                current = Computation()
                if header:
                    self.computations[header[2]] = current
            elif match := _OPERATION.match(line):
                operation = _operation(match)
                current.operations[operation.name] = operation
                current.root = operation.name if match[1] else current.root

    def __iter__(self) -> Iterator[tuple[str, Operation]]:
        """All operations, each with the name of its computation."""
        for name, computation in self.computations.items():
            for operation in computation.operations.values():
                yield name, operation

    @functools.cached_property
    def callers(self) -> Mapping[str, tuple[str, Operation]]:
        """By computation the fusion or call that it belongs to, and where that is."""
        return {operation.called: (name, operation) for name, operation in self if operation.called}

    def argument(self, computation: str, name: str) -> str | None:
        """The one argument of the program, or of a loop's body, that a value is made of.

        Args:
            computation: where the value is.
            name: of the operation that makes it.

        Returns:
            A text that says which argument; None for what is made of several arguments.
        """
        found: set[str] = set()
        todo, seen = [_Value(computation, name, None)], set()
        while todo and len(found) < 2:
            value = todo.pop()
            if value in seen:
                continue
            seen.add(value)
            before = self._before(value)
            if before is None:
                found.add(str(value))
            else:
                todo += before
        return found.pop() if len(found) == 1 else None

    def _before(self, value: _Value) -> list[_Value] | None:
        """What a value is made of; None for an argument."""
        where, index = value.computation, value.part
        operation = self.computations[where].operations[value.name]
        if operation.kind == "parameter":
            if where not in self.callers:
                return None
            outside, caller = self.callers[where]
            operand = caller.operands[int(operation.rest.split(")")[0])]
            return [_Value(outside, operand, index)]
        if operation.kind == "get-tuple-element":
            return [_Value(where, operation.operands[0], operation.number("index"))]
        if operation.kind == "tuple" and index is not None:
            return [_Value(where, operation.operands[index], None)]
        if operation.called in self.computations:
            inside = self.computations[operation.called]
            return [_Value(operation.called, inside.root, index)]
        return [_Value(where, name, None) for name in operation.operands]


def _operation(match: re.Match[str]) -> Operation:
    inside = re.split(r"\)(?:, |$)", match[5], maxsplit=1)[0]
    operands = re.findall(r"%([\w.-]+)", inside)
    return Operation(match[2], match[3], match[4], tuple(operands), match[5])


def array_bytes(shape: str) -> list[int]:
    """Bytes of each array in the text of a shape."""
    return [
        math.prod(int(n) for n in numbers.split(",") if n) * _bits(dtype) // 8
        for dtype, numbers in _ARRAY.findall(shape)
    ]


def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return _BITS.get(dtype) or int(digits[0] if digits else 8)

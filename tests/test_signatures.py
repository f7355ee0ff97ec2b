"""What signatures leave open: annotations that are missing, or ``Any``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import codi_jax

ROOT = Path(codi_jax.__file__).parent
#: The share of signatures that may say ``Any``.
LIMIT = 0.05


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and nested ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def annotations(function) -> list[ast.expr | None]:
    """Those of its parameters, and of its result; None where one is missing."""
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    own = [p.annotation for p in named if p.arg not in ("self", "cls")]
    return own if function.name == "__init__" else [*own, function.returns]


def says_any(function) -> bool:
    found = (node for hint in annotations(function) if hint for node in ast.walk(hint))
    return any("Any" in (getattr(n, "id", ""), getattr(n, "attr", "")) for n in found)


def package() -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Place in the package -> function; assets are sources for PyTorch."""
    files = [p for p in sorted(ROOT.rglob("*.py")) if "assets" not in p.parts]
    return {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": function
        for path in files
        for function in functions(path.read_text(encoding="utf-8"))
    }


def test_few_signatures_say_any():
    found = package()
    open_ones = [place for place, function in found.items() if says_any(function)]
    assert len(open_ones) <= LIMIT * len(found), "\n".join(open_ones)


def test_every_function_is_annotated():
    assert [place for place, function in package().items() if None in annotations(function)] == []


@pytest.mark.parametrize(
    ("source", "any_", "missing"),
    [
        ("def f(x: int) -> None: ...", False, False),
        ("def f(x: dict[str, typing.Any]) -> None: ...", True, False),
        ("def f(*x: int, **y: Any) -> None: ...", True, False),
        ("async def f() -> list[Any]: ...", True, False),
        ("def f(x, /) -> None: ...", False, True),
        ("def f(x: int): ...", False, True),
        ("class A:\n    def f(self, x: int) -> None: ...", False, False),
        ("class A:\n    def __init__(self, x: int): ...", False, False),
    ],
)
def test_the_rules_see_what_they_count(source, any_, missing):
    (function,) = functions(source)
    assert says_any(function) == any_
    assert (None in annotations(function)) == missing

"""How long files and functions are, and how much of them is tests."""

from pathlib import Path
from statistics import median

import pytest

from tests.test_signatures import functions

ROOT = Path(__file__).parents[1]
PARTS = ("codi_jax", "configs", "tests", "benchmarks")
#: In lines.
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FILE = 300, 60, 120
#: Lines of tests for each line of the package.
TESTS = 0.8


def sources(part: str) -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / part).rglob("*.py"))
    }


def lines(source: str) -> int:
    return len(source.splitlines())


def long_functions(source: str) -> list[str]:
    """Their names; decorators do not count."""
    return [
        function.name
        for function in functions(source)
        if function.end_lineno - function.lineno >= LONGEST_FUNCTION
    ]


@pytest.mark.parametrize("part", PARTS)
def test_files_and_functions_are_short(part):
    found = sources(part)
    assert found
    assert [file for file, text in found.items() if lines(text) > LONGEST_FILE] == []
    long = {file: names for file, text in found.items() if (names := long_functions(text))}
    assert long == {}


def test_half_of_the_files_fit_on_a_page_or_two():
    assert median(lines(text) for part in PARTS for text in sources(part).values()) <= MEDIAN_FILE


def test_there_are_tests_for_the_lines():
    tests, package = (sum(map(lines, sources(part).values())) for part in ("tests", "codi_jax"))
    assert tests >= TESTS * package


@pytest.mark.parametrize(("body", "long"), [(58, []), (59, []), (60, ["f"])])
def test_the_rule_sees_long_functions(body, long):
    """Methods and nested functions count, too."""
    method = "class A:\n    @property\n    def f(self):\n" + "        pass\n" * body
    assert long_functions(method) == long
    assert long_functions("async def f():\n" + "    pass\n" * body) == long

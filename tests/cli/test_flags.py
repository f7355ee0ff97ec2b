"""Flags of a dataclass: types, defaults, help; and what a command says to a wrong one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags

from codi_jax.cli import flags

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a test gives.

    Attributes:
        count: how many
            there are.
        weight: of each, in
            kilograms.
        fast: whether to hurry.
        name: by which it is known.
        kind: one of two.
        steps: some numbers.
        folder: where it lies.
        target: where it goes.
        hidden: not for the command line.
    """

    count: int = 3
    weight: float | None = None
    fast: bool = False
    name: str = "x"
    kind: str = "a"
    steps: tuple[str, ...] = ("1", "2")
    folder: Path | None = None
    target: Path = Path("~/out")
    hidden: dict = dataclasses.field(default_factory=dict, metadata={"flag": False})


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line into fresh flags."""

    def parsed(*arguments):
        values = absl_flags.FlagValues()
        for module in (absl_flags, flags.flags):
            monkeypatch.setattr(module, "FLAGS", values)
        for name in ("bool", "integer", "float", "string", "list", "enum"):
            define = getattr(absl_flags, f"DEFINE_{name}")
            monkeypatch.setattr(
                flags.flags,
                f"DEFINE_{name}",
                lambda *args, define=define, **kw: define(*args, **kw, flag_values=values),
            )
        flags.define(Options, {"kind": ("a", "b")})
        values(["test", *arguments])
        return values

    return parsed


def test_the_defaults_are_the_fields(parse):
    parse()
    expected = dataclasses.replace(Options(), target=Path("~/out").expanduser())
    assert flags.read(Options) == expected
    assert flags.given(Options) == {}


def test_every_type_is_read(parse):
    parse(
        "--count=5", "--weight=2", "--fast", "--name=y z", "--kind=b", "--steps=4,8",
        "--folder=~/in",
    )  # fmt: skip
    options = flags.read(Options, hidden={"a": 1})
    assert options == Options(
        count=5,
        weight=2.0,
        fast=True,
        name="y z",
        kind="b",
        steps=("4", "8"),
        folder=Path.home() / "in",
        target=Path.home() / "out",
        hidden={"a": 1},
    )
    assert isinstance(options.weight, float)
    assert [*flags.given(Options)] == ["count", "weight", "fast", "name", "kind", "steps", "folder"]


def test_the_help_is_the_docstring(parse):
    values = parse()
    assert values["count"].help == "how many there are."
    assert values["weight"].help == "of each, in kilograms."
    assert "hidden" not in values
    assert "kind" in values and values["kind"].parser.enum_values == ["a", "b"]


@pytest.mark.parametrize("wrong", ["--count=many", "--weight=heavy", "--kind=c", "--cuont=3"])
def test_a_wrong_value_is_refused(parse, wrong):
    with pytest.raises(absl_flags.Error, match=wrong[2:].split("=")[0]):
        parse(wrong)


def sample(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "codi_jax.sample", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    )


def test_an_unknown_flag_is_one_line():
    done = sample("--inptu=photo.png")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "inptu" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_help_shows_the_flags_of_the_command():
    text = " ".join(sample("--help").stdout.split())
    assert "Make pictures with a trained model" in text
    for said in (
        "--checkpoint a workdir",
        "--guidance_scale weight of the prompt, 1 for no guidance",
        "--image_guidance_scale for edits",
        "--negative_prompt what guidance leads away from",
        "[demo]",
    ):
        assert said in text

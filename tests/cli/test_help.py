"""What --help of every command says: on two screens, with examples and every default."""

import importlib
import re

import pytest
from absl import flags

from codi_jax.cli.help import WIDTH, help_text
from tests.printed import COMMANDS, parsed

#: Lines of two screens.
SCREENS = 48


def test_the_text_and_each_kind_of_flag() -> None:
    values = flags.FlagValues()
    flags.DEFINE_integer("count", 0, "how many there are.", flag_values=values)
    flags.DEFINE_bool("fast", False, "whether to hurry.", flag_values=values)
    flags.DEFINE_bool("whole", True, "whether all.", flag_values=values)
    flags.DEFINE_enum("kind", "a", ["a", "b"], "one of two.", flag_values=values)
    flags.DEFINE_list("steps", ["1", "4"], "some numbers.", flag_values=values)
    flags.DEFINE_string("name", None, "by which it is known. " * 4, flag_values=values)
    text = help_text("Counts.\n\n    count --x\n\nMore\nwords.\n", [*values], values)
    assert text.splitlines() == [
        "Counts.",
        "",
        "    count --x",
        "",
        "More words.",
        "",
        "flags:",
        "  --count         how many there are. [0]",
        "  --[no]fast      whether to hurry. [off]",
        "  --kind a|b      one of two. [a]",
        "  --name          by which it is known. by which it is known. by which it is",
        "                  known. by which it is known.",
        "  --steps         some numbers. [1,4]",
        "  --[no]whole     whether all. [on]",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_fits_two_screens_and_has_two_examples(command: str) -> None:
    module = importlib.import_module(f"codi_jax.{command}")
    before = {*flags.FLAGS}  # absl's own are among them
    with parsed(module.__name__, []):
        own = {*flags.FLAGS} - before
        text = help_text(module.__doc__ or "", own)
        defaults = {name: flags.FLAGS[name].default for name in own}
    lines = text.splitlines()
    assert len(lines) <= SCREENS and max(map(len, lines)) <= WIDTH
    assert len(re.findall(rf"^    python -m codi_jax\.{command}\b", text, re.M)) >= 2
    entries = re.split(r"^  --(?:\[no\])?", text, flags=re.M)[1:]
    said = {entry.split()[0]: entry for entry in entries}
    assert {*said} == own
    given = [name for name, default in defaults.items() if default not in (None, "", [])]
    assert [name for name in given if "[" not in said[name]] == []

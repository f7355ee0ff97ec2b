"""What --help says: the command's text, and its own flags with their defaults."""

import inspect
import textwrap
from collections.abc import Iterable

from absl import flags

#: Columns of a terminal, and where a flag's text goes on.
WIDTH, INDENT = 80, 18


def help_text(text: str, names: Iterable[str], values: flags.FlagValues = flags.FLAGS) -> str:
    """The help of a command, no wider than `WIDTH` where no example is.

    Args:
        text: the command's docstring: paragraphs, and examples that are indented.
        names: its flags.
        values: where they are defined.
    """
    blocks = inspect.cleandoc(text).split("\n\n")
    filled = [
        block if block.startswith(" ") else textwrap.fill(" ".join(block.split()), WIDTH)
        for block in blocks
    ]
    own = [_flag(values[name]) for name in sorted(names)]
    return "\n\n".join([*filled, "\n".join(["flags:", *own])])


def _flag(flag: flags.Flag) -> str:
    """One flag: its name, what it takes, its text and its default."""
    name, words = f"--{flag.name}", " ".join((flag.help or "").split())
    default = flag.default_as_str or ""
    if flag.boolean:
        name, default = f"--[no]{flag.name}", "on" if flag.default else "off"
    if isinstance(flag, flags.EnumFlag):
        values = "|".join(flag.parser.enum_values)
        name, words = f"{name} {values}", words.removeprefix(f"<{values}>: ")
    default = default.strip("'")
    return textwrap.fill(
        f"{words} [{default}]" if default else words,
        WIDTH,
        initial_indent=f"  {name}  ".ljust(INDENT),
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )

"""What sources do not read of what they are given: said once, with counts."""

from collections.abc import Collection, Mapping

from absl import logging

_said: set[str] = set()


def say(message: str) -> None:
    """Logs a warning, once in this process: a source is often made twice, for both splits."""
    if message not in _said:
        _said.add(message)
        logging.warning("%s", message)


def say_left_out(where: str, counts: Mapping[str, int]) -> None:
    """Says how many of each kind are not read; nothing where there is none."""
    if counts:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        say(f"{where}: not read are {listed}")


def say_some(where: str, what: str, names: Collection[str], total: int) -> None:
    """Says that ``what`` holds of some of ``total``, with an example; nothing where of none."""
    if names:
        say(f"{where}: {len(names)} of {total} {what}, for example {min(names)!r}")

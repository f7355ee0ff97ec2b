"""Goes on past a few corrupt images."""

import operator
import os
import tempfile
import weakref

from absl import logging

from codi_jax.data.images import CorruptError
from codi_jax.data.sources.base import Element, Source
from codi_jax.typing import UserError


class SkippingSource:
    """Gives the next good image in the place of a corrupt one, up to a limit.

    What stands in is a function of the index alone, so the samples are the same for every
    number of workers; it is then seen twice in an epoch. Each corrupt image is logged once and
    counted once, over all worker processes of this host: they share a small file.

    Args:
        source: raises `CorruptError` for a corrupt image.
        max_corrupt: how many different ones are skipped; 0 stops at the first.

    Raises:
        UserError: (by indexing) more than `max_corrupt` corrupt images, all named.
    """

    def __init__(self, source: Source, max_corrupt: int) -> None:
        if max_corrupt < 0:
            raise UserError(f"data.max_corrupt is {max_corrupt}; it must be at least 0.")
        self._source, self._max_corrupt = source, max_corrupt
        handle, self._path = tempfile.mkstemp(prefix="codi_jax_corrupt_")
        os.close(handle)
        weakref.finalize(self, _remove, self._path, os.getpid())

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        for k in range(index, index + len(self)):
            try:
                return self._source[k % len(self)]
            except CorruptError as error:
                self._count(error)
        raise UserError("data: every image is corrupt; check data.source.")

    def corrupt(self) -> list[str]:
        """What is wrong with each corrupt image so far, its name first."""
        with open(self._path, encoding="utf-8") as file:
            return list(dict.fromkeys(file.read().splitlines()))

    def _count(self, error: CorruptError) -> None:
        if self._max_corrupt == 0:
            raise error
        line = " ".join(str(error).split())
        known = self.corrupt()
        if line not in known:
            with open(self._path, "a", encoding="utf-8") as file:  # appending is atomic
                file.write(line + "\n")
            known = self.corrupt()
            logging.warning("skipped %s (%d of %d)", line, len(known), self._max_corrupt)
        if len(known) > self._max_corrupt:
            raise too_many(known, self._max_corrupt) from error


def too_many(corrupt: list[str], max_corrupt: int) -> UserError:
    """The error that names them all."""
    return UserError(
        f"data: {len(corrupt)} corrupt images, more than data.max_corrupt={max_corrupt}: "
        + " | ".join(corrupt)
    )


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner and os.path.exists(path):  # not in a forked child
        os.unlink(path)

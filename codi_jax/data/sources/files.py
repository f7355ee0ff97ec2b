"""The files that a glob pattern names."""

import glob
import os
from collections.abc import Sequence

from codi_jax.typing import UserError


def find_files(paths: str | Sequence[str | os.PathLike[str]], kind: str) -> list[str]:
    """Sorted paths: of a glob pattern, or those given.

    Raises:
        UserError: nothing matches, or one does not exist; `kind` says of what.
    """
    found = glob.glob(paths) if isinstance(paths, str) else [os.fspath(p) for p in paths]
    absent = [p for p in found if not os.path.isfile(p)]
    if absent or not found:
        raise UserError(f"{kind} {absent[0] if absent else paths}: no such file; check the path.")
    return sorted(found)

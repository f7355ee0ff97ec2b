"""Which file becomes which: found, and checked, before the first picture is made."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from codi_jax.data.sources import FolderSource
from codi_jax.data.sources.files import find_paths
from codi_jax.sampling.picture_formats import FORMATS, format_of
from codi_jax.typing import UserError, check_choice

EXISTING = ("error", "skip", "overwrite")
#: In place of an input: standard input.
STDIN = Path("/dev/stdin")
#: In place of an output: standard output.
STDOUT = Path("-")
#: In place of the input of a picture from noise.
NOISE = Path("noise", "\0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
    """What results are called, and what becomes of files that are there already.

    Attributes:
        output: folder of the results, or with one input the result's file; - is standard output.
        suffix: what is added to each result's name, before its ending.
        format: of the results; by default as the output's name ends, else png.
        existing: what becomes of results that are there already. A file that is read is never
            written to.
        quality: of JPEG and WebP, 1 to 100.
    """

    output: Path = Path("out")
    suffix: str = ""
    format: str | None = None
    existing: str = "error"
    quality: int = 95

    def __post_init__(self) -> None:
        """Check the fields; the errors are `UserError`."""
        check_choice("existing", self.existing, EXISTING)
        if self.format is not None:
            check_choice("format", self.format, FORMATS)
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality={self.quality}: give 1 to 100.")
        if os.path.basename(self.suffix) != self.suffix or "\0" in self.suffix:
            raise UserError(f"--suffix={self.suffix!r} is part of a file's name: no folder in it.")

    @property
    def is_file(self) -> bool:
        """Whether ``output`` is the name of a file or standard output, and not a folder.

        Raises:
            UserError: a picture's ending that is not written, or not ``format``'s.
        """
        if self.output == STDOUT:
            return True
        named = not self.output.is_dir() and format_of(self.output)
        if named and self.format not in (None, named):
            raise UserError(f"--output={self.output} is no {self.format}: leave --format out.")
        if not named and self.output.is_file():
            raise UserError(f"--output={self.output} is a file: give a folder, or end it in .png.")
        return bool(named)

    @property
    def written_as(self) -> str:
        """The format of the results."""
        named = format_of(self.output) if self.is_file and self.output != STDOUT else None
        return self.format or named or "png"

    def target(self, name: Path) -> Path:
        """The file that the result of the input ``name`` goes to."""
        if self.is_file:
            return self.output
        return self.output / name.parent / f"{name.stem}{self.suffix}{FORMATS[self.written_as]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One picture.

    Attributes:
        source: the file that is read; `STDIN`, or `NOISE` for none.
        target: the file that is written; `STDOUT`.
        mask: the file of its mask, if it has one.
    """

    source: Path
    target: Path
    mask: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilePlan:
    """What is to be done.

    Attributes:
        jobs: the pictures to be made.
        skipped: results that are there already.
    """

    jobs: tuple[Job, ...]
    skipped: tuple[Path, ...] = ()


def plan_files(
    words: Sequence[str], mask: Path | None, naming: Naming, noise_name: str | None = None
) -> FilePlan:
    """All files that are read and written.

    Args:
        words: files, folders and patterns, as a user gives them, or "-".
        mask: one for all inputs, or a folder with one of the same name for each.
        naming: of the results.
        noise_name: what the result is called of a picture from noise, which has no input.

    Raises:
        UserError: an input or a mask that is not there; two inputs with one result; a result
            that would replace a file that is read, or (by ``existing``) any file; a folder that
            cannot be made.
    """
    found = find_inputs(words, None if naming.is_file else naming.output)
    if noise_name is not None:
        found = [(NOISE, Path(noise_name))]
    if naming.is_file and len(found) > 1:
        raise UserError(f"--output={naming.output} is one file for {len(found)}: give a folder.")
    masks = _masks(mask, found)
    jobs = tuple(
        Job(source=source, target=naming.target(name), mask=one)
        for (source, name), one in zip(found, masks, strict=True)
    )
    _check_apart(jobs)
    _check_unread(jobs)
    return _with_existing(jobs, naming.existing)


def find_inputs(words: Iterable[str], outputs: Path | None = None) -> list[tuple[Path, Path]]:
    """(file, its name below the output folder) of every picture that the words name.

    Args:
        words: files, folders, patterns, or "-".
        outputs: the folder of the results; inside a folder of inputs it is left out.

    Raises:
        UserError: a word that names nothing.
    """
    found: list[tuple[Path, Path]] = []
    for word in words:
        path = Path(os.path.expanduser(word))
        if word == "-" or path == STDIN:
            found.append((STDIN, Path("stdin")))
        elif path.is_dir():
            found += _of_folder(path, outputs)
        elif os.path.lexists(path):
            found.append((path, Path(path.name)))
        else:
            found += _of_pattern(path, outputs)
    if sum(path == STDIN for path, _ in found) > 1:
        raise UserError("- is given twice: standard input holds one picture.")
    return found


def _of_folder(folder: Path, outputs: Path | None) -> list[tuple[Path, Path]]:
    # Results of an earlier run are no inputs.
    results = None if outputs is None else _real(outputs)
    if results == _real(folder):
        results = None
    kept: dict[Path, bool] = {}
    found = []
    for name in FolderSource(folder).names:
        path = folder / name
        if path.parent not in kept:
            where = _real(path.parent)
            kept[path.parent] = results not in (where, *where.parents)
        if kept[path.parent]:
            found.append((path, Path(name)))
    if not found:
        raise UserError(f"the input {folder} has no picture outside of --output={outputs}.")
    return found


def _of_pattern(pattern: Path, outputs: Path | None) -> list[tuple[Path, Path]]:
    matches = sorted(find_paths(str(pattern)))
    if not matches:
        raise UserError(f"the input {pattern} does not exist; give pictures, or a folder of them.")
    # With "./", so that no name is taken for "-" or for a home folder.
    words = [match if os.path.isabs(match) else os.path.join(".", match) for match in matches]
    return find_inputs(words, outputs)


def _masks(mask: Path | None, inputs: Sequence[tuple[Path, Path]]) -> list[Path | None]:
    """The mask of each input: one file for all, or of a folder the file of the same name."""
    if mask is None:
        return [None] * len(inputs)
    masks = [mask / name if mask.is_dir() else mask for _, name in inputs]
    for one in masks:
        if not one.is_file():
            raise UserError(f"--mask {one} does not exist; give a mask for each input.")
    return [*masks]


def _check_apart(jobs: Sequence[Job]) -> None:
    """No two inputs have one result."""
    by_target: dict[Path, Job] = {}
    for job in jobs:
        where = STDOUT if job.target == STDOUT else _real(job.target)
        other = by_target.setdefault(where, job)
        if other is not job:
            raise UserError(
                f"{other.source} and {job.source} would both become {job.target}: give them in two "
                "commands, each with an --output of its own."
            )


def _check_unread(jobs: Sequence[Job]) -> None:
    """No result replaces a file that is read, under whatever name, and all folders can be made."""
    reads = [path for job in jobs for path in (job.source, job.mask) if path not in (None, NOISE)]
    read = {key for path in reads if path is not None for key in _identities(path)}
    for job in jobs:
        if job.target == STDOUT:
            continue
        if not read.isdisjoint(_identities(job.target)):
            raise UserError(
                f"{job.target} is a file that is read: it would be replaced. Give another "
                "--output, or a --suffix."
            )
        _check_folder(job.target)


def _identities(path: Path) -> set[object]:
    """What tells whether two names mean one file: links, and systems without upper case."""
    keys: set[object] = {_real(path)}
    looks: list[Callable[[], os.stat_result]] = [lambda: os.stat(path), lambda: os.lstat(path)]
    if path == STDIN:  # it may be a file: `sample - < a.png`
        keys, looks = set(), [lambda: os.fstat(sys.stdin.fileno())]
    for look in looks:
        try:
            found = look()
        except (OSError, ValueError, AttributeError):  # not there, closed, or a link to nothing
            continue
        keys.add((found.st_dev, found.st_ino))
    return keys


def _real(path: Path) -> Path:
    """Without links; unlike `Path.resolve` it takes links that lead in a circle."""
    return Path(os.path.realpath(path))


def _check_folder(target: Path) -> None:
    """The result can be written, as far as that can be known."""
    if target.is_dir():
        raise UserError(f"{target} is a folder: give another --output.")
    parent = next(p for p in target.absolute().parents if os.path.lexists(p))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{target}: cannot write in {parent}; choose another --output.")


def _with_existing(jobs: tuple[Job, ...], existing: str) -> FilePlan:
    def there(job: Job) -> bool:
        return job.target != STDOUT and os.path.lexists(job.target)

    found = [job.target for job in jobs if there(job)]
    if not found or existing == "overwrite":
        return FilePlan(jobs=jobs)
    if existing == "skip":
        return FilePlan(jobs=tuple(job for job in jobs if not there(job)), skipped=(*found,))
    raise UserError(
        f"{found[0]} exists ({len(found)} of {len(jobs)} results): choose another --output, or "
        "--existing=skip or --existing=overwrite."
    )

"""The command over files: whatever its command line is, what it refused stays as it was."""

import glob
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from codi_jax import sample
from codi_jax.data.images import SUFFIXES
from codi_jax.sampling import user_files
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.user_pictures import as_mask
from tests.printed import called_with

NAMES = (
    *("a.png", "A.png", "a.PNG", "a.jpg", "a_x.png", "b.tiff", "-.png", "é [1].webp", "~"),
    *("sub/a.png", "sub/b.JPEG", "sub/deep/a.png", "out/a.png", "out/old.png"),
)
LINKS = ("l.png", "sub/l.png", "out/b.png", "out/l.jpg", "out/a_x.png", "a.tiff", "out/stdin.png")
FOLDER_LINKS = ("folder", "sub/up", "out/in")
PLACES = (
    *(".", "sub", "sub/", "out", "folder", "folder/out", "sub/up", "..", "~", "~/work", "-"),
    *("*", "sub/*", "**/*.png", "[aA].*", "*.tif*", "sub/../a.png", "./sub/a.png", "~/work/a.jpg"),
    *("folder/a.png", "folder/sub/../a.png", "sub/up/a.png", "/dev/stdin", *LINKS, *NAMES),
)
OUTPUTS = (
    *(".", ".", "out", "out", "sub", "folder", "sub/up", "out/in", "..", "~", "~/work/sub", "-"),
    *("out/../sub", "sub/deep/..", "folder/sub", "new/deep", "../work", "a.tif", "Sub"),
    *("~/work/a.png", "sub/../a.jpg", "folder/a.png", "./l.png", "new/a.png", *LINKS, *NAMES),
)


class Doubles:
    """A model that repeats every pixel, and writes down what it refused."""

    model = SimpleNamespace(task="sr")

    def __init__(self):
        self.read = []

    def recipe(self, **options):
        return SimpleNamespace(steps=4)

    def make(self, source, mask, recipe, told, check):
        self.read += [path for path in (source, mask) if isinstance(path, Path)]
        picture = read_picture(source)
        if mask is not None:
            as_mask(mask)
        return picture.map(lambda values: values.repeat(2, 0).repeat(2, 1))


@pytest.fixture
def model(monkeypatch, unchecked):
    model = Doubles()
    monkeypatch.setattr(user_files.Sampler, "load", lambda name, **tiling: model)
    return model


class Drawn:
    """A folder with a tree of files, and a command line."""

    def __init__(self, home: Path, seed: int):
        self.rng, self.home, self.work = np.random.default_rng(seed), home, home / "work"
        there = [self.work / name for name in self.some(NAMES, 6)]
        for i, file in enumerate(there):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 3), (seed % 256, i, 9)).save(file, format="png")
            if self.one_of(12):
                file.write_text(f"no picture {i}")
        for name in self.some(LINKS, 4):
            link, target = self.work / name, there[self.rng.integers(len(there))]
            link.parent.mkdir(exist_ok=True)
            kind = self.rng.integers(4)
            if kind == 0:
                os.link(target, link)
            elif kind == 1:
                link.symlink_to(target)
            elif kind == 2:
                link.symlink_to(os.path.relpath(target, link.parent))
            else:  # to itself, or to nothing
                link.symlink_to(link.name if self.one_of(2) else "nothing.png")
        for name in FOLDER_LINKS:
            if (self.work / name).parent.is_dir() and not self.one_of(3):
                (self.work / name).symlink_to(self.work, target_is_directory=True)
        self.stdin = there[self.rng.integers(len(there))]
        self._draw()

    def one_of(self, count: int) -> bool:
        return self.rng.integers(count) == 0

    def some(self, names: tuple[str, ...], most: int) -> list[str]:
        return self.rng.choice(names, self.rng.integers(1, most), replace=False).tolist()

    def _draw(self) -> None:
        there = (*(word for word in PLACES if glob.glob(os.path.join(self.work, word))), "-")
        self.words = self.some(PLACES if self.one_of(5) else there, 3)
        self.mask = str(self.rng.choice(("sub", "out", *NAMES))) if self.one_of(9) else None
        near = (*OUTPUTS, *[os.path.dirname(self.words[0]) or ".", "out"] * 10, *self.words * 4)
        self.output = str(self.rng.choice(near))
        self.existing = str(self.rng.choice(("error", "skip", *["overwrite"] * 4)))
        if self.one_of(4) and self.output != "-":
            self.output = str(self.work / self.output)
        flags = [f"--output={self.output}", f"--existing={self.existing}"]
        if not self.one_of(4):
            flags += ["--suffix", str(self.rng.choice(("", "_x", "x", ".png")))]
        if self.one_of(3) and not os.path.splitext(self.output)[1]:
            flags.append(f"--format={self.rng.choice(('png', 'jpg', 'webp', 'tiff'))}")
        if self.mask:
            flags += ["--mask", self.mask]
        words = [word if word == "-" or word[0] != "-" else f"./{word}" for word in self.words]
        if self.one_of(4):
            words[-1] = f"--input={words[-1]}"
        self.arguments = [*flags, *words] if self.one_of(2) else [*words, *flags]

    def files(self) -> dict[Path, object]:
        """Every file and link below, and what is in it or where it leads."""
        found: dict[Path, object] = {}
        for folder, folders, names in os.walk(self.home):
            for name in [*folders, *names]:
                path = Path(folder, name)
                if path.is_symlink():
                    found[path] = os.readlink(path)
                elif path.is_file():
                    found[path] = path.read_bytes()
        return found

    def inputs(self) -> set[Path]:
        """The files that are given: by name, by pattern, in a folder, as masks, through a pipe."""
        results, found = os.path.realpath(os.path.expanduser(self.output)), set()
        words = [os.path.expanduser(word) for word in self.words]
        words += [self.mask] if self.mask else []
        for word in words:
            matches = [word] if os.path.lexists(word) else glob.glob(word)
            if word.startswith("**"):  # glob itself would go round in the links for ever
                matches = [path for path in _pictures(".", "none") if path.suffix == ".png"]
            for match in matches:
                found |= _pictures(match, results) if os.path.isdir(match) else {Path(match)}
        if {"-", "/dev/stdin"} & {*self.words}:
            found = {path for path in found if str(path) != "/dev/stdin"} | {self.stdin}
        return found


def _pictures(top: str, results: str) -> set[Path]:
    """What lies in a folder of inputs, but for what earlier runs have made in a folder of it."""
    found, seen = set(), set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        inside = real == results or real.startswith(results + os.sep)
        if real in seen or (inside and os.path.realpath(top) != results):
            folders.clear()
            continue
        seen.add(real)
        found |= {Path(folder, n) for n in names if os.path.splitext(n)[1].lower() in SUFFIXES}
    return found


def call(arguments: list[str]) -> int:
    with called_with("codi_jax.sample", arguments), pytest.raises(SystemExit) as left:
        sample.main()
    return left.value.code or 0


def contents(paths: set[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in paths if path.is_file()}


def test_no_command_line_destroys_an_input(tmp_path, model, monkeypatch, capfd):
    statuses, replaced, refused = [], 0, 0
    for seed in range(250):
        drawn = Drawn(tmp_path / str(seed), seed)
        monkeypatch.chdir(drawn.work)
        monkeypatch.setenv("HOME", str(drawn.home))
        inputs, before = drawn.inputs(), drawn.files()
        kept = contents(inputs)
        with open(drawn.stdin) as stdin, monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", stdin)
            patched.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
            status = call(drawn.arguments)
        said, after = capfd.readouterr().err, drawn.files()

        what = f"{seed}: {drawn.arguments} < {drawn.stdin}\n{said}"
        assert status in (0, 2, 3) and "Traceback" not in said, what
        assert contents(inputs) == kept, what
        changed = {path for path in before if after.get(path) != before[path]}
        assert not changed or drawn.existing == "overwrite", what
        assert not changed & inputs, what  # nor is a link to one replaced by a file
        assert status != 2 or after == before, what
        made = changed | (after.keys() - before.keys())
        for path in made:
            assert Image.open(path).size == (4, 6), what
        statuses.append(status)
        replaced += bool(changed)
        refused += "is a file that is read" in said
    # The test is of command lines that write, that replace what is not read, and that would have
    # replaced what is.
    counts = statuses.count(0), statuses.count(3), replaced, refused
    assert all(np.array(counts) > (50, 5, 1, 5)), counts

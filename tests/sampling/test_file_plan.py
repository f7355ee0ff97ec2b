"""Which file becomes which; and that no command line can destroy a file that is read."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codi_jax.sampling.file_plan import STDIN, STDOUT, Naming, plan_files
from codi_jax.sampling.picture_formats import write
from codi_jax.typing import UserError


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 3), (1, 2, 3)).save(path)
    return path


def planned(tmp_path: Path, *words: str, mask: Path | None = None, **naming):
    naming.setdefault("output", tmp_path / "out")
    plan = plan_files(words, mask, Naming(**naming))
    return {job.source: job.target for job in plan.jobs}


def test_files_folders_patterns_and_a_pipe(tmp_path, monkeypatch):
    a, b = picture(tmp_path / "in" / "a.png"), picture(tmp_path / "in" / "deep" / "b.JPG")
    c, out = picture(tmp_path / "c [1].webp"), tmp_path / "out"
    assert planned(tmp_path, str(c)) == {c: out / "c [1].png"}
    found = planned(tmp_path, str(tmp_path / "in"), str(c))
    assert found == {a: out / "a.png", b: out / "deep" / "b.png", c: out / "c [1].png"}
    assert planned(tmp_path, str(tmp_path / "i*" / "*.png")) == {a: out / "a.png"}
    assert planned(tmp_path, "-", output=STDOUT) == {STDIN: STDOUT}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert planned(tmp_path, "~/in/a.png") == {a: out / "a.png"}
    monkeypatch.chdir(tmp_path)
    for name in ("-", "~"):  # names that a pattern finds are only names
        picture(tmp_path / "odd" / "x.png").rename(tmp_path / name)
    assert sorted(map(str, planned(tmp_path, "[-~]"))) == ["-", "~"]


def test_a_file_that_comes_through_a_pipe_is_not_replaced(tmp_path, monkeypatch):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    os.link(a, tmp_path / "l.png")
    with open(a) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        for target in (a, tmp_path / "l.png"):
            with pytest.raises(UserError, match="is a file that is read"):
                planned(tmp_path, "-", output=target, existing="overwrite")
        assert planned(tmp_path, "-", output=b, existing="overwrite") == {STDIN: b}
    assert planned(tmp_path, "-", output=a, existing="overwrite") == {STDIN: a}  # it is closed


def test_names_of_results(tmp_path):
    a = picture(tmp_path / "a.png")
    named = {"suffix": "_x4", "format": "jpg"}
    assert planned(tmp_path, str(a), **named) == {a: tmp_path / "out" / "a_x4.jpg"}
    file = tmp_path / "new" / "result.TIF"
    assert planned(tmp_path, str(a), output=file) == {a: file}
    assert Naming(output=file).written_as == "tiff" and Naming(output=STDOUT).written_as == "png"
    folder = tmp_path / "v1.png"
    folder.mkdir()
    assert planned(tmp_path, str(a), output=folder) == {a: folder / "a.png"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "gif"}, "format='gif' is unknown: choose one of png"),
        ({"existing": "ask"}, "existing='ask' is unknown"),
        ({"quality": 0}, "--quality=0: give 1 to 100"),
        ({"suffix": "../x"}, "no folder in it"),
        ({"output": Path("a.bmp")}, r"\.bmp is not written; end it in \.png"),
        ({"output": Path("a.png"), "format": "jpg"}, "a.png is no jpg: leave --format out"),
        ({"output": Path(__file__)}, "is a file: give a folder"),
    ],
)
def test_names_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        assert Naming(**options).is_file is None


def test_what_is_found_before_the_first_picture(tmp_path):
    a, b = picture(tmp_path / "1" / "a.png"), picture(tmp_path / "2" / "a.jpg")
    with pytest.raises(UserError, match="would both become .*a.png: give them in two commands"):
        planned(tmp_path, str(a), str(b))
    with pytest.raises(UserError, match="is one file for 2"):
        planned(tmp_path, str(a), str(b), output=tmp_path / "x.png")
    for nothing in ("nowhere.png", "no*.png"):
        with pytest.raises(UserError, match=r"the input .*no.* does not exist"):
            planned(tmp_path, str(tmp_path / nothing))
    with pytest.raises(UserError, match="given twice"):
        planned(tmp_path, "-", "-")
    with pytest.raises(UserError, match="--mask .* does not exist; give a mask for each"):
        planned(tmp_path, str(a), mask=tmp_path / "2" / "mask.png")
    with pytest.raises(UserError, match="cannot write in"):
        planned(tmp_path, str(a), output=tmp_path / "1" / "a.png" / "out")
    masks = plan_files([str(a)], b.parent / b.name, Naming(output=tmp_path / "out"))
    assert masks.jobs[0].mask == b


def test_results_that_are_there(tmp_path):
    a, b = picture(tmp_path / "in" / "a.png"), picture(tmp_path / "in" / "b.png")
    old = picture(tmp_path / "out" / "a.png")
    with pytest.raises(UserError, match=r"a\.png exists \(1 of 2 results\)"):
        planned(tmp_path, str(a.parent))
    plan = plan_files([str(a.parent)], None, Naming(output=old.parent, existing="skip"))
    assert [job.source for job in plan.jobs] == [b] and plan.skipped == (old,)
    assert len(planned(tmp_path, str(a.parent), existing="overwrite")) == 2
    # The results of the last time, in a folder of the input, are no input.
    inside = planned(tmp_path, str(tmp_path), output=old.parent, existing="overwrite")
    assert set(inside) == {a, b}


def test_a_file_that_comes_to_be_meanwhile_is_left(tmp_path):
    old = picture(tmp_path / "a.png")
    before = old.read_bytes()
    with pytest.raises(UserError, match="left as it is"):
        write(old, b"new", replace=False)
    assert old.read_bytes() == before and [*tmp_path.iterdir()] == [old]
    write(old, b"new", replace=True)
    assert old.read_bytes() == b"new"


NAMES = ("a.png", "A.png", "a.jpg", "a_x.png", "-", "-.png", "b.tiff", "sub/a.png", "sub/b.jpeg")


def scene(root: Path, rng: np.random.Generator) -> None:
    """Pictures, and links of both kinds to pictures and folders."""
    there = [*rng.choice(NAMES, rng.integers(1, 5), replace=False)]
    for name in there:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(name.encode())
    for link in ("l.png", "out/a.png", "out/l.png"):
        target = root / str(rng.choice(there))
        (root / link).parent.mkdir(exist_ok=True)
        kind = rng.integers(4)
        if kind == 0:
            (root / link).symlink_to(target)
        elif kind == 1:
            os.link(target, root / link)
    if rng.integers(3) == 0:
        (root / "folder").symlink_to(root, target_is_directory=True)


def drawn_command(root: Path, rng: np.random.Generator) -> tuple[list[str], Path | None, dict]:
    places = (".", "out", "sub", "folder", "folder/out", "l.png", "*", "sub/*", "**/*.png", *NAMES)
    words = [str(root / word) for word in rng.choice(places, rng.integers(1, 3))]
    mask = root / str(rng.choice(NAMES)) if rng.integers(4) == 0 else None
    naming = {
        "output": root / str(rng.choice((".", "out", "sub", "folder", "out/../sub", *NAMES))),
        "suffix": str(rng.choice(("", "", "_x"))),
        "existing": str(rng.choice(("error", "skip", "overwrite", "overwrite"))),
        "format": [None, "png", "jpg"][rng.integers(3)],
    }
    return words, mask, naming


def test_no_command_line_destroys_a_file_that_is_read(tmp_path):
    """Of drawn file trees and command lines; tests/test_sample.py has the same of the command."""
    rng, done = np.random.default_rng(0), 0
    for trial in range(250):
        root = tmp_path / str(trial)
        root.mkdir()
        scene(root, rng)
        words, mask, naming = drawn_command(root, rng)
        try:
            plan = plan_files(words, mask, Naming(**naming))
        except UserError:
            continue
        read = [path for job in plan.jobs for path in (job.source, job.mask) if path]
        before = {path: path.read_bytes() for path in read}
        targets = [os.path.realpath(job.target) for job in plan.jobs]
        assert len({*targets}) == len(targets)
        for job in plan.jobs:
            write(job.target, b"result", replace=naming["existing"] == "overwrite")
        assert {path: path.read_bytes() for path in read} == before, (words, naming)
        assert all(job.target.read_bytes() == b"result" for job in plan.jobs)
        done += bool(plan.jobs)
    assert done > 20  # the test is of command lines that write something

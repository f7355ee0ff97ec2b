import glob
import os

import pytest

from codi_jax.data.sources.files import find_files, find_paths
from codi_jax.typing import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{0..1}{00..01}.tar", ["s-000.tar", "s-001.tar"]),
        ("{s,t}-00*.tar", ["s-000.tar", "s-001.tar", "s-002.tar", "t-00.tar"]),
        ("**/*.tar", ["d/e/u.tar", "s-000.tar", "s-001.tar", "s-002.tar", "t-00.tar"]),
        ("d/{e}/[u].tar", ["d/{e}/[u].tar"]),
        ("s-00[01].tar", ["s-000.tar", "s-001.tar"]),
    ],
)
def test_patterns(tree, pattern, expected):
    tree("s-000.tar", "s-001.tar", "s-002.tar", "t-00.tar", "d/e/u.tar")
    if "{0..1}" in pattern:
        pytest.raises(UserError, find_files, pattern, "shards")  # s-100 is absent
        pattern = "s-{0..0}{00..01}.tar"
    if "[u]" in pattern:
        tree("d/{e}/[u].tar")
    assert find_files(pattern, "shards") == expected


def test_two_stars_find_what_glob_finds(tree):
    root = tree("a.png", "d/b.png", "d/e/c.png", "d/e/f/c.png", ".h/x.png", "[d]/b.png", "d/.x.png")
    for pattern in ("**/*.png", "d/**/*.png", "**/e/*", "**/e/**/*.png", "[[]d]/**/b*", "no/**/*"):
        for one in (pattern, f"{root}/{pattern}"):
            found = find_paths(one)
            assert sorted(found) == sorted({*glob.glob(one, recursive=True)}), one
    assert sorted(find_paths("d/**")) == ["d/b.png", "d/e", "d/e/c.png", "d/e/f", "d/e/f/c.png"]


def test_two_stars_come_to_an_end_where_links_lead_in_a_circle(tree, tmp_path_factory):
    root, elsewhere = tree("a.png", "d/b.png"), tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "c.png").write_text("x")
    for number in range(4):
        (root / f"round{number}").symlink_to(root)
        (root / "d" / f"round{number}").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "d" / "more").symlink_to(elsewhere)
    assert sorted(find_paths("**/*.png")) == ["a.png", "d/b.png", "d/more/c.png"]


def test_what_is_absent_or_no_file_is_named(tree, monkeypatch):
    root = tree("a-0.tar", "home/x.tar")
    with pytest.raises(UserError, match=r"shards a-1\.tar: no such file"):
        find_files("a-{0..1}.tar", "shards")
    with pytest.raises(UserError, match=r"shards b\*\.tar: no such file"):
        find_files("b*.tar", "shards")
    os.mkfifo(root / "pipe.tar")
    with pytest.raises(UserError, match=r"shards pipe\.tar: no regular file"):
        find_files("*.tar", "shards")
    with pytest.raises(UserError, match="more than 1000000 files"):
        find_files("x{0..99999999}.tar", "shards")
    monkeypatch.setenv("HOME", str(root / "home"))
    assert find_files("~/x.tar", "shards") == [str(root / "home" / "x.tar")]

"""The folder of decoded pictures: killed, shared, damaged, full, and made room in."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from codi_jax.data import sources
from codi_jax.data.sources import cache_folder
from codi_jax.typing import UserError
from tests.data.sources.counting import Counting, assert_equal, cached, elements

pytestmark = pytest.mark.usefixtures("memory")


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_entry_is_decoded_anew(noise, damage):
    elements(cached(Counting(noise), "disk"))
    source = Counting(noise)
    kept = cached(source, "disk")
    path = kept.folder.path / "0" / "2"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:2000]), "empty": b""}[damage])
    for _ in range(2):
        assert_equal(elements(sources.FolderSource(noise)), elements(kept))
    assert source.reads == [2]


def test_a_full_disk_ends_the_keeping_not_the_run(noise, caplog, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    kept = cached(Counting(noise), "disk")
    kept[0]
    monkeypatch.setattr(cache_folder, "write_entry", full)
    assert_equal(elements(sources.FolderSource(noise)), elements(kept))
    assert [text for text in caplog.messages if "No space left" in text][1:] == []
    assert not list(kept.folder.path.rglob("*.part")) and kept.folder.counts().images == 1


def test_a_root_of_somebody_else_is_refused(noise, tmp_path, memory, caplog):
    (tmp_path / "theirs").mkdir()
    memory.symlink_to(tmp_path / "theirs")
    source = Counting(noise)
    assert cached(source, "auto") is source  # nobody has asked for it
    assert "memory belongs to another user): no picture is kept" in caplog.messages[-1]
    (tmp_path / "disk").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="disk belongs to another user"):
        cached(Counting(noise), "disk")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="config.data.cache='disk': .*XDG_CACHE_HOME"):
        cached(Counting(noise), "disk", disk=tmp_path / "file" / "x")


def test_folders_of_other_sources_make_room_unless_they_are_used(noise, tmp_path):
    bound = 8 * 8192 / 1e9
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(2):
            os.link(noise / f"{i}.png", tmp_path / name / f"{i}.png")
    one, two = (Counting(tmp_path / name) for name in ("one", "two"))
    disk = tmp_path / "disk"
    elements(cached(one, "disk", disk=disk, max_gb=bound))
    used = cached(two, "disk", disk=disk, max_gb=bound)
    elements(used)
    kept = cached(Counting(noise), "disk", disk=disk, max_gb=bound)  # 6 and 2 fit, 2 more do not
    elements(kept)
    assert kept.folder.counts().images == 6 and used.folder.counts().images == 2
    assert len([path for path in disk.iterdir() if path.is_dir()]) == 2
    elements(used)
    assert two.reads == [0, 1]


RUNS = """
    import json, os, signal, sys
    from pathlib import Path
    from codi_jax.data import sources
    from codi_jax.data.sources import cache_folder, caching
    noise, write, written = Path(sys.argv[1]), cache_folder.write_entry, []
    caching._memory = lambda: noise.parent / "memory"
    def run(mode, order, killed_at):
        def write_half(file, stamp, element):
            written.append(1)
            if len(written) == killed_at:
                file.write(b"CODIRAW1 and no more"), file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            write(file, stamp, element)
        cache_folder.write_entry = write_half
        kept = sources.cached(
            sources.FolderSource(noise), mode, label=str(noise), max_gb=1.0, reads=10**6,
            image_bytes=1.0, disk=noise.parent / "disk",
        )
        for index in order:
            kept[index]
        del kept
    started = []
    for arguments in json.loads(sys.argv[2]):
        if not (process := os.fork()):
            run(*arguments)
            os._exit(0)
        started.append(process)
    print([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started])
"""


def run_beside(noise, *runs):
    """Exit codes of processes that use a cache at the same time: (mode, order, killed at)."""
    command = [sys.executable, "-c", textwrap.dedent(RUNS), str(noise), json.dumps(runs)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_killed_runs_and_runs_that_share_one(noise, memory):
    """Killed in the middle of its fourth picture: three are whole, and nothing else is believed."""
    folders = sources.FolderSource(noise.parent)  # another source
    mine = cached(Counting(noise))
    found = run_beside(
        noise,
        ("disk", [0, 1, 2, 3], 4),
        ("memory", [0, 1, 2, 3, 4, 5], 0),
        ("memory", [5, 4, 3, 2, 1, 0], 0),
        ("memory", [3, 2], 2),
    )
    assert found == [-9, 0, 0, -9] or found == [-9, 0, 0, 0]  # the last may find all kept
    assert mine.folder.counts() == (6 * 8192, 6, 0)  # and none of them has removed it
    expected = elements(sources.FolderSource(noise))
    assert_equal(expected, elements(mine))
    assert mine._source.reads == []

    disk = noise.parent / "disk"
    assert len(list(disk.rglob("*.part"))) == 1
    source = Counting(noise)
    kept = cached(source, "disk")
    assert kept.folder.counts() == (3 * 8192, 3, 0) and not list(disk.rglob("*.part"))
    assert_equal(expected, elements(kept))
    assert source.reads == [3, 4, 5]

    left = memory / "left by a run that was killed"
    left.mkdir()
    (left / ".users").touch()
    other = cached(folders)
    assert sorted(p for p in memory.iterdir() if p.is_dir()) == sorted(
        [mine.folder.path, other.folder.path]
    )

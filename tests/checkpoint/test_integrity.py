"""Each kind of damage to the newest checkpoint is named, and the one before is taken."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.checkpoint.integrity import checkpoint_damage
from codi_jax.checkpoint.store import Store
from codi_jax.typing import UserError

ARRAYS = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the steps 4 and 8."""
    directory = tmp_path_factory.mktemp("checkpoints")
    with Store(directory) as store:
        for step in (4, 8):
            save(store, step)
    return directory


def save(store: Store, step: int) -> bool:
    return store.save(
        step,
        trainable=ARRAYS,
        ema={"eval": ARRAYS},
        opt={"mu": ARRAYS},
        data_state={"next_sample": step},
        meta={"frozen": "x"},
    )


def values(item: Path) -> Path:
    """The largest file of an item: that of the numbers."""
    files = (path for path in item.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def flip(step: Path) -> None:
    """64 bytes of the numbers change; orbax alone restores them without a word."""
    file = values(step / "ema")
    content = bytearray(file.read_bytes())
    for i in range(64):
        content[len(content) // 2 + i] ^= 0xFF
    file.write_bytes(content)


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def manifest(item: Path) -> Path:
    return item / "manifest.ocdbt"


#: What happens to the newest checkpoint, and what is said of it.
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "numbers missing": (lambda s: values(s / "trainable").unlink(), "trainable/.* is missing"),
    "numbers cut": (lambda s: cut(values(s / "trainable")), "trainable/.* has another size"),
    "numbers emptied": (lambda s: values(s / "opt").write_bytes(b""), "opt/.* has another size"),
    "numbers zeroed": (lambda s: zero(values(s / "ema")), "ema/.* has other bytes"),
    "bytes flipped": (flip, "ema/.* has other bytes"),
    "item missing": (lambda s: shutil.rmtree(s / "ema"), "ema/.* is missing"),
    "manifest missing": (
        lambda s: manifest(s / "ema").unlink(),
        "ema/manifest.* is missing",
    ),
    "manifest cut": (
        lambda s: cut(manifest(s / "ema")),
        "ema/manifest.* has another size",
    ),
    "manifest emptied": (lambda s: manifest(s / "opt").write_bytes(b""), "opt/manifest"),
    "manifest zeroed": (
        lambda s: zero(manifest(s / "opt")),
        "opt/manifest.* has other bytes",
    ),
    "metadata cut": (lambda s: cut(s / "trainable" / "_METADATA"), "trainable/_METADATA"),
    "data missing": (lambda s: shutil.rmtree(s / "data"), "data/.* is missing"),
    "data cut": (lambda s: cut(s / "data" / "process_0.json"), "data/process_0.json"),
    "data {}": (lambda s: (s / "data" / "process_0.json").write_text("{}"), "data/process_0.json"),
    "meta missing": (lambda s: shutil.rmtree(s / "meta"), "meta/.* is missing"),
    "meta cut": (lambda s: cut(s / "meta" / "metadata"), "meta/metadata"),
    "meta {}": (lambda s: (s / "meta" / "metadata").write_text("{}"), "meta/metadata"),
    "checksums cut": (lambda s: cut(s / "checksums" / "checksums.json"), "checksums.json cannot"),
    "nothing left": (empty, "data or meta is missing"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    kind: str, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    harm, said = DAMAGES[kind]
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    harm(tmp_path / "8")
    assert len(DAMAGES) == 19
    with Store(tmp_path) as store:
        assert store.newest_whole() == 4
        restored = store.restore(4, {"trainable": ARRAYS})["trainable"]
        np.testing.assert_array_equal(restored["kernel"], ARRAYS["kernel"])
        assert store.restore_data_state(4) == {"next_sample": 4}
        assert store.all_steps() == [4] and (tmp_path / "8.damaged").is_dir()
        assert save(store, 8)  # the run comes there again
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(rf"checkpoint .*/8 is damaged: {said}.*8\.damaged", lines[0])


def test_all_damaged_is_one_message_and_nothing_is_renamed(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "8")
    (tmp_path / "4" / "meta" / "metadata").write_text("{}")
    with Store(tmp_path) as store, pytest.raises(UserError) as error:
        store.newest_whole()
    said = str(error.value)
    assert "every checkpoint in" in said and "8 (ema/" in said and "4 (meta/metadata" in said
    assert {"4", "8"} <= {path.name for path in tmp_path.iterdir()}


def test_a_reader_renames_nothing(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "8")
    with Store(tmp_path, read_only=True) as store:
        assert store.newest_whole() == 4 and store.all_steps() == [4, 8]
    assert "8 is damaged" in capfd.readouterr().err


def test_what_is_whole_is_not_complained_of(saved: Path, tmp_path: Path) -> None:
    assert checkpoint_damage(saved / "8") == ""
    sums = json.loads((saved / "8" / "checksums" / "checksums.json").read_text())
    assert {name.split("/")[0] for name in sums} == {"trainable", "ema", "opt", "data", "meta"}
    shutil.copytree(saved / "8", tmp_path / "8")
    shutil.rmtree(tmp_path / "8" / "checksums")  # as versions before wrote it
    assert checkpoint_damage(tmp_path / "8") == ""
    with Store(tmp_path / "none") as store:
        assert store.newest_whole() is None


def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = "RESOURCE_EXHAUSTED: Error writing: Failed to write 9 bytes [os_error_code='28']"
    with Store(tmp_path) as store:
        save(store, 1)

        def refuse(*_: object, **__: object) -> None:
            raise ValueError(full)

        monkeypatch.setattr(store._manager, "save", refuse)
        with pytest.raises(UserError, match="No space left on device.*Make room"):
            save(store, 2)
    with Store(tmp_path) as store:
        assert store.newest_whole() == 1


def test_a_workdir_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    with Store(tmp_path / "c") as store:
        save(store, 1)
        store._manager.wait_until_finished()
        shutil.rmtree(tmp_path / "c")
        with pytest.raises(UserError, match="has vanished, so step 2 is not saved"):
            save(store, 2)
    assert not (tmp_path / "c").exists()

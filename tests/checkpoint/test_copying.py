"""What is copied of text encoders and tokenizers, and what is not."""

import pytest

from codi_jax.checkpoint.copying import copy_part
from codi_jax.typing import UserError


def part(root):
    folder = root / "text_encoder"
    folder.mkdir(parents=True)
    for name in ("config.json", "merges.txt", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_what_a_part_consists_of(tmp_path):
    folder = part(tmp_path / "model")
    for other in ("pytorch_model.bin", "tokenization_evil.py", ".env"):
        (folder / other).write_text("")
    (folder / "deep.json").mkdir()
    copy_part(folder, tmp_path / "out")
    assert names(tmp_path / "out") == ["config.json", "merges.txt", "model.safetensors"]


@pytest.mark.parametrize("kind", ["file", "folder", "relative"])
def test_links_out_of_the_checkpoint(kind, tmp_path):
    folder = part(tmp_path / "model")
    (tmp_path / "secret.txt").write_text("secret")
    if kind == "folder":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        up = "../../secret.txt" if kind == "relative" else tmp_path / "secret.txt"
        (folder / "notes.txt").symlink_to(up)
    with pytest.raises(UserError, match="is a link to .*outside of the checkpoint"):
        copy_part(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_within_and_those_of_the_cache(tmp_path):
    folder = part(tmp_path / "model")
    (folder / "copy.txt").symlink_to("merges.txt")
    copy_part(folder, tmp_path / "out")
    assert (tmp_path / "out" / "copy.txt").read_text() == "merges.txt"
    cached = part(tmp_path / "models--a--b" / "snapshots" / "0a1b")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (cached / "config.json").rename(blobs / "123")
    (cached / "config.json").symlink_to("../../../blobs/123")
    copy_part(cached, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == "config.json"

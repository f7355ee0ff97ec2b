"""Paths, and Hugging Face ids without network: a fake hub, and caches laid out as the library's."""

import fnmatch
import json
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from codi_jax.checkpoint import hub
from codi_jax.typing import UserError
from tests.checkpoint.test_hub_files import SD15, WANTED

huggingface_hub = pytest.importorskip("huggingface_hub", reason="sd extra")
errors = pytest.importorskip("huggingface_hub.errors", reason="sd extra")

SHA = "0123456789abcdef0123456789abcdef01234567"
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": [None, None],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None],
}


def test_what_exists_is_returned_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "sd.safetensors").write_bytes(b"")
    assert hub.resolve(tmp_path) == tmp_path
    assert hub.resolve(str(tmp_path / "sd.safetensors")) == tmp_path / "sd.safetensors"
    monkeypatch.chdir(tmp_path)
    assert str(hub.resolve("owner/name")) == "owner/name"  # before the id of that name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.resolve("~/owner") == tmp_path / "owner"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sd.ckpt", r"sd.ckpt: such files can run code(.|\n)*weights_only=True"),
        ("notes.txt", "notes.txt is no .safetensors file"),
        ("missing", "missing does not exist. Give a directory.*owner/name@revision"),
        ("missing/sd.safetensors", "does not exist"),
        ("/missing/name", "does not exist"),
        ("./owner/name", "does not exist"),
        ("gs://bucket/model", "does not exist"),
    ],
)
def test_paths_that_are_no_checkpoints(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=message):
        hub.resolve(name)


class FakeHub:
    """One repository, in place of huggingface_hub's functions; what it is asked for is kept."""

    def __init__(self, root, files):
        self.root, self.files, self.error = root, files, None
        self.asked = []

    def model_info(self, api, repo, revision=None):
        self.asked.append((repo, revision))
        if self.error is not None:
            raise self.error

        class Info:
            siblings = [type("File", (), {"rfilename": file}) for file in self.files]

        return Info

    def snapshot_download(self, repo, *, revision, cache_dir, allow_patterns):
        self.asked.append((repo, revision, cache_dir))
        for file in self.files:
            if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                (self.root / file).parent.mkdir(parents=True, exist_ok=True)
                (self.root / file).write_text("{}")
        return str(self.root)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    fake = FakeHub(tmp_path / "snapshot", SD15)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *a, **k: fake.model_info(*a, **k)
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_an_id_is_fetched(fake, tmp_path):
    folder = hub.resolve("owner/name")
    assert folder == fake.root
    got = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert got == WANTED
    hub.resolve("owner/name@refs/pr/1", cache_dir=tmp_path / "cache")
    assert fake.asked == [
        ("owner/name", None),
        ("owner/name", None, None),
        ("owner/name", "refs/pr/1"),
        ("owner/name", "refs/pr/1", tmp_path / "cache"),
    ]


def http_error(name, status):
    """An error as the library makes it; its response class differs between versions."""
    response = type("Response", (), {"status_code": status, "headers": {}, "request": None})()
    return getattr(errors, name)("refused", response=response)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("GatedRepoError", 403, r"accept its conditions.*https://huggingface.co/o/n,.*auth login"),
        ("RepositoryNotFoundError", 401, "no path on this machine and no repository.*HF_TOKEN"),
        ("RepositoryNotFoundError", 404, "no path on this machine and no repository.*spelling"),
        ("RevisionNotFoundError", 404, "o/n has no revision 'v9'"),
    ],
)
def test_refusals_are_one_message_each(name, status, message, fake):
    fake.error = http_error(name, status)
    with pytest.raises(UserError, match=message):
        hub.resolve("o/n@v9")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def fill_cache(cache, files, revision="main"):
    """``models--owner--name`` with blobs, a snapshot that links to them, and a reference."""
    root = cache / "models--owner--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / revision).write_text(SHA)
    (root / "blobs").mkdir()
    # Later versions list the whole repository, also what was never asked for.
    (root / "trees").mkdir()
    tree = {file: {"size": 1, "blob_id": "0" * 40} for file in SD15}
    (root / "trees" / f"{SHA}.json").write_text(json.dumps({"format_version": 1, "files": tree}))
    snapshot = root / "snapshots" / SHA
    for i, file in enumerate(files):
        blob, link = root / "blobs" / f"{i:040x}", snapshot / file
        if file.endswith(".safetensors"):
            save_file({"mu": np.zeros((), np.float32)}, blob)
        else:
            blob.write_text(json.dumps(INDEX if file == "model_index.json" else {}))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def test_without_network_the_cache_is_used(offline, tmp_path):
    snapshot = fill_cache(tmp_path, WANTED)
    assert hub.resolve("owner/name", cache_dir=tmp_path).samefile(snapshot)
    assert hub.resolve(f"owner/name@{SHA}", cache_dir=tmp_path).samefile(snapshot)
    with pytest.raises(UserError, match="has no copy of it.*--revision v2"):
        hub.resolve("owner/name@v2", cache_dir=tmp_path)


def test_a_single_model_in_the_cache(offline, tmp_path):
    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    snapshot = fill_cache(tmp_path, files)
    assert hub.resolve("owner/name", cache_dir=tmp_path).samefile(snapshot)
    (snapshot / "config.json").unlink()
    with pytest.raises(UserError, match="lacks config.json"):
        hub.resolve("owner/name", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "incomplete.*unet holds no diffusion"),
        ("vae/config.json", "lacks config.json in .*vae"),
        ("scheduler/scheduler_config.json", "lacks scheduler/"),
    ],
)
def test_an_interrupted_download_is_no_checkpoint(missing, message, offline, tmp_path):
    fill_cache(tmp_path, WANTED - {missing})
    with pytest.raises(UserError, match=f"owner/name cannot be downloaded.*{message}"):
        hub.resolve("owner/name", cache_dir=tmp_path)


def test_offline_without_a_cache_is_one_message_that_helps(offline, tmp_path):
    with pytest.raises(UserError) as caught:
        hub.resolve("owner/name", cache_dir=tmp_path)
    message = str(caught.value)
    assert "owner/name cannot be downloaded" in message
    assert "offline mode is enabled" in message
    assert "hf download owner/name --local-dir FOLDER" in message
    assert "model_index.json and the .json, .txt and .safetensors files in unet/, vae/" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [ConnectionError, errors.HTTPError])
def test_without_connection_the_message_says_so(kind, fake, tmp_path, monkeypatch):
    fake.error = kind("Name or service not known")
    missing = errors.LocalEntryNotFoundError("not in the cache")

    def fail(*args, local_files_only, **kwargs):
        raise missing

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"downloaded \(Name or service not known\), and the"):
        hub.resolve("owner/name", cache_dir=tmp_path)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'codi_jax\[sd\]'"):
        hub.resolve("owner/name")


def test_what_is_shipped_is_there():
    for name in hub.SHIPPED:
        assert (hub.checkpoint_path(name) / "model_index.json").is_file()
        assert (hub.checkpoint_path(name) / "README.md").is_file()


@pytest.mark.parametrize("name", hub.ARCHITECTURES)
def test_architectures_of_published_checkpoints_are_here(name: str) -> None:
    path = hub.architecture_path(name)
    assert path.parent == hub.ASSETS / "architectures"
    assert sorted(file.suffix for file in path.rglob("*") if file.is_file()) == [".json"] * 4
    assert hub.architecture_path("demo") == hub.checkpoint_path("demo")

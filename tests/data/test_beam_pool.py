"""`prepare --beam`: the same bytes as this machine makes, on the direct runner."""

import json
import sys

import numpy as np
import pytest

from codi_jax.data import images
from codi_jax.data.beam_pool import BeamPool, _problem
from codi_jax.data.preparation import Preparation, prepare_source
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.data.sources import NamedSource, make_source
from codi_jax.data.transforms import LATENTS
from codi_jax.typing import UserError

DIRECT = "--runner=DirectRunner"
CONFIG = PrepareConfig(min_size=20, resize=30, crop=24, stride=4, canny=True, shard_images=3)


@pytest.fixture
def beam():
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed: the extra beam")


@pytest.fixture
def photos(tmp_path):
    """Eight photos with a depth column and captions; one is broken, one small, one a duplicate."""
    rows = []
    for i in range(8):
        rng = np.random.default_rng(i % 7)  # the last is the first again
        noise = rng.integers(0, 256, (12 if i == 2 else 36, 40, 3), np.uint8)
        images.save_image(tmp_path / "in" / f"{i}.png", noise)
        images.save_image(tmp_path / "in" / "depth" / f"{i}.png", noise[..., 0])
        rows.append({"file_name": f"{i}.png", "text": f"no. {i}"})
        rows[-1]["depth_file_name"] = f"depth/{i}.png"
    (tmp_path / "in" / "3.png").write_bytes(b"nothing")
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "in"


def encode(samples):
    return [{**s, LATENTS: s["image"][::4, ::4].astype(np.float16)} for s in samples]


def fail(samples):
    raise UserError(f"{samples[0]['name']}: cannot be encoded; take it away.")


def prepared(photos, output, config=CONFIG, encoder=None, **asked):
    asked = Preparation(source=str(photos), output=output, **asked)
    asked.check()
    return prepare_source(asked, config, encoder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestWarning")
@pytest.mark.parametrize(
    ("config", "encoder"),
    [
        (CONFIG, None),
        (PrepareConfig(crop=24, latents="A", embeddings="B", image_format="jpeg"), encode),
        (PrepareConfig(near_duplicates=-1, shard_images=100), None),
    ],
)
def test_the_same_bytes_as_this_machine_makes(photos, tmp_path, beam, config, encoder):
    here = prepared(photos, tmp_path / "here", config, encoder)
    there = prepared(photos, tmp_path / "there", config, encoder, beam=DIRECT)
    assert there == here and here["images"]["corrupt"] == 1
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert not (tmp_path / "there" / ".work").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestWarning")
def test_what_is_wrong_is_said_once_and_the_work_goes_on_later(photos, tmp_path, beam):
    config = PrepareConfig(crop=24, latents="A", shard_images=3)
    with pytest.raises(UserError, match=r"^0\.png@0,0: cannot be encoded; take it away\.$"):
        prepared(photos, tmp_path / "out", config, fail, beam=DIRECT)
    scans = sorted((tmp_path / "out" / ".work").glob("scan-*"))
    before = [path.stat().st_mtime_ns for path in scans]
    assert len(scans) == 3
    (tmp_path / "out" / ".work" / "scan-000000003").unlink()  # as if it had been killed there
    with pytest.raises(UserError, match="cannot be encoded"):
        prepared(photos, tmp_path / "out", config, fail, beam=DIRECT)
    after = [path.stat().st_mtime_ns for path in scans]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    prepared(photos, tmp_path / "out", config, encode)  # this machine ends it
    prepared(photos, tmp_path / "here", config, encode)
    assert contents(tmp_path / "out") == contents(tmp_path / "here")
    with pytest.raises(UserError, match="1 corrupt images, more than data.max_corrupt=0"):
        prepared(photos, tmp_path / "strict", config, beam=DIRECT, max_corrupt=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_options_that_are_none(tmp_path, beam):
    with pytest.raises(UserError, match="--beam='DirectRunner' is no list of pipeline options"):
        BeamPool(None, "DirectRunner", tmp_path)


class LostError(Exception):
    def details(self):
        return "no route to HOST"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Traceback:\n  File x\nKeyError: 'a' [while running]\n"), "KeyError: 'a'"),
        (LostError("<LostError of RPC:\n\tstatus = UNAVAILABLE\n>"), "LostError: no route to"),
        (ValueError(), "ValueError: "),
    ],
)
def test_what_a_runner_says_is_told(error, said):
    assert said in _problem(error)


def test_without_beam_it_says_how_to_get_it(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"needs Apache Beam: run `pip install -e '\.\[beam\]'`"):
        prepared(photos, tmp_path / "out", beam=DIRECT)


def test_workers_are_of_this_machine(photos, tmp_path):
    with pytest.raises(UserError, match="--workers=2 is for this machine: with --beam"):
        prepared(photos, tmp_path / "out", beam=DIRECT, workers=2)


def test_a_source_that_travels_by_its_name(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    source = NamedSource("in", "train")
    monkeypatch.chdir(photos)
    assert len(source) == 8
    expected = make_source(str(photos), "train")[0]
    np.testing.assert_array_equal(source[0]["image"], expected["image"])
    source._count = 9
    with pytest.raises(UserError, match="has 8 images on .* and 9 where the work was started"):
        source[0]
    assert len(NamedSource("skimage", "eval")) == 2

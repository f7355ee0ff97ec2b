"""The user's files in, pictures out, with a sampler that writes down what it is given."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from codi_jax import __version__
from codi_jax.data.images import load_image, save_image
from codi_jax.sampling import user_files
from codi_jax.sampling.file_plan import STDOUT, Naming
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.picture_formats import SETTINGS_KEY
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.sizing import Sizing
from codi_jax.sampling.tiling import Tiling
from codi_jax.sampling.user_files import Report, Request, make_files
from codi_jax.sampling.user_pictures import as_mask
from codi_jax.typing import UserError


class Recorder:
    """Inverts pictures; from noise it makes a black one."""

    model = SimpleNamespace(task="sr")

    def __init__(self):
        self.calls, self.masks, self.loaded = [], [], []

    def load(self, name, **tiling):
        self.loaded.append((name, tiling))
        return self

    def recipe(self, **options):
        self.calls.append(options)
        return SimpleNamespace(steps=options.get("steps", 4))

    def make(self, source, mask, recipe, told, check):
        read = read_picture(source)
        check(*read.size)
        self.masks.append(mask if mask is None else as_mask(mask))
        told(1, 2)
        return read.map(lambda values: 255 - values)

    def generate(self, progress, **options):
        self.calls.append(options)
        progress(SimpleNamespace(tiles=1, of=1))
        return Image.new("RGB", (4, 4))


@pytest.fixture
def recorder(monkeypatch, unchecked):
    recorder = Recorder()
    monkeypatch.setattr(user_files.Sampler, "load", recorder.load)
    return recorder


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)


def test_a_folder(tmp_path, recorder):
    for i, name in enumerate(("a.png", "deep/b.png")):
        save_image(tmp_path / "in" / name, photo(i))
        save_image(tmp_path / "masks" / name, np.full((6, 5), 255, np.uint8))
    request = Request(input=str(tmp_path / "in"), mask=tmp_path / "masks")
    told = make_files(
        request,
        Guidance(prompt="a cat", guidance_scale=2.0),
        Naming(output=tmp_path / "out"),
        Sizing(outscale=2.0),
        Tiling(tile="64", max_memory=3.0),
    )
    assert told == Report(text=f"2 images written to {tmp_path / 'out'}")
    for i, name in enumerate(("a.png", "deep/b.png")):
        np.testing.assert_array_equal(load_image(tmp_path / "out" / name), 255 - photo(i))
    assert [mask.shape for mask in recorder.masks] == [(6, 5)] * 2
    assert recorder.loaded == [("demo", {"tile": "64", "max_memory": 3.0})]
    (options,) = recorder.calls
    assert options == {
        "seed": 0, "prompt": "a cat", "guidance_scale": 2.0, "image_guidance_scale": 1.0,
        "outscale": 2.0, "size": None, "max_megapixels": None, "color_fix": None,
    }  # fmt: skip


def test_a_png_says_how_it_was_made(tmp_path, recorder):
    save_image(tmp_path / "a.png", photo())
    request = Request(inputs=(str(tmp_path / "a.png"),), seed=5)
    make_files(request, Guidance(prompt="ein Käfer"), Naming(output=tmp_path / "b.png"))
    with Image.open(tmp_path / "b.png") as image:
        settings = json.loads(image.text[SETTINGS_KEY])
    assert settings == {
        "version": __version__, "model": "demo", "task": "sr", "seed": 5, "steps": 4,
        "prompt": "ein Käfer", "image_guidance_scale": 1.0,
    }  # fmt: skip


def test_broken_files_are_told_at_the_end_and_the_rest_is_done(tmp_path, recorder):
    names = [f"{i}.png" for i in range(4)]
    for name in names:
        save_image(tmp_path / "in" / name, photo())
    (tmp_path / "in" / "1.png").write_text("no picture")
    (tmp_path / "in" / "2.png").write_bytes((tmp_path / "in" / "2.png").read_bytes()[:60])
    request = Request(inputs=(str(tmp_path / "in"),))
    report = make_files(request, Guidance(), Naming(output=tmp_path / "out"))
    assert report.text.startswith("2 images written")
    assert [line.split("in/")[1][:5] for line in report.failures] == names[1:3]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "3.png"]
    # The second time only what is missing is tried again.
    naming = Naming(output=tmp_path / "out", existing="skip")
    again = make_files(request, Guidance(), naming)
    assert again.text.startswith("0 images written") and "2 skipped" in again.text
    assert again.failures == report.failures
    for name in names[1:3]:
        save_image(tmp_path / "out" / name, photo())
    recorder.loaded.clear()
    assert make_files(request, Guidance(), naming).failures == ()
    assert recorder.loaded == []  # nothing to be done: no model is loaded


def test_a_result_that_a_format_cannot_hold_is_not_made(tmp_path, recorder):
    save_image(tmp_path / "a.png", np.zeros((1, 16_400), np.uint8))
    request = Request(inputs=(str(tmp_path / "a.png"),))
    report = make_files(request, Guidance(), Naming(output=tmp_path, format="webp", suffix="_"))
    assert "webp holds 16383 on a side" in report.failures[0] and "a.png" in report.failures[0]
    assert recorder.masks == []


def test_a_pipe(tmp_path, recorder, monkeypatch):
    save_image(tmp_path / "a.png", photo())
    stdin = SimpleNamespace(buffer=io.BytesIO((tmp_path / "a.png").read_bytes()))
    stdout = SimpleNamespace(buffer=io.BytesIO())
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    make_files(Request(inputs=("-",)), Guidance(), Naming(output=STDOUT))
    np.testing.assert_array_equal(load_image(stdout.buffer.getvalue()), 255 - photo())


def test_without_an_input_a_picture_comes_from_noise(tmp_path, recorder):
    request = Request(seed=7, steps=3)
    target = tmp_path / "seed_7.png"
    naming = Naming(output=tmp_path)
    report = make_files(request, Guidance(negative_prompt="fog"), naming, Sizing(size="6x8"))
    assert report == Report(text=f"written: {target}")
    assert target.exists()
    assert recorder.calls == [{"seed": 7, "steps": 3, "negative_prompt": "fog", "size": (8, 6)}]
    with pytest.raises(UserError, match=r"seed_7.png exists"):
        make_files(request, Guidance(), naming)


@pytest.mark.parametrize(
    ("request_", "guidance", "says"),
    [
        (Request(), Guidance(image_guidance_scale=2.0), "--image_guidance_scale=2.0"),
        (Request(mask=Path("m.png")), Guidance(), "--mask=m.png"),
        (Request(input="/nowhere"), Guidance(), "the input /nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_refused(request_, guidance, says):
    with pytest.raises(UserError, match=says):
        make_files(request_, guidance)

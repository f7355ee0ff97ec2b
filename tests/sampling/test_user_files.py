"""The user's files in, pictures out, with a sampler that writes down what it is given."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codi_jax.data.images import load_image, save_image
from codi_jax.sampling import user_files
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.user_files import Request, input_files, make_files, mask_files
from codi_jax.typing import UserError


class Recorder:
    """Inverts pictures; from noise it makes a black one."""

    class pictures:  # noqa: N801  an attribute of samplers
        class task:  # noqa: N801
            takes_map = False

    def __init__(self):
        self.calls = []

    def __call__(self, picture, **options):
        self.calls.append(options)
        return 255 - picture

    def generate(self, **options):
        self.calls.append(options)
        return Image.new("RGB", (4, 4))


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(user_files.Sampler, "load", lambda name: recorder)
    return recorder


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)


def test_a_folder(tmp_path, recorder):
    for i, name in enumerate(("a.png", "deep/b.png")):
        save_image(tmp_path / "in" / name, photo(i))
        save_image(tmp_path / "masks" / name, np.full((6, 5), 255, np.uint8))
    request = Request(input=tmp_path / "in", mask=tmp_path / "masks", output=tmp_path / "out")
    told = make_files(request, Guidance(prompt="a cat", guidance_scale=2.0))
    assert told == f"2 images written to {tmp_path / 'out'}"
    for i, name in enumerate(("a.png", "deep/b.png")):
        np.testing.assert_array_equal(load_image(tmp_path / "out" / name), 255 - photo(i))
    for options in recorder.calls:
        assert options.pop("mask").shape == (6, 5)
        assert options == {
            "seed": 0, "prompt": "a cat", "guidance_scale": 2.0, "image_guidance_scale": 1.0,
        }  # fmt: skip


def test_without_an_input_a_picture_comes_from_noise(tmp_path, recorder):
    request = Request(output=tmp_path, seed=7, steps=3)
    target = tmp_path / "seed_7.png"
    assert make_files(request, Guidance(negative_prompt="fog")) == f"written: {target}"
    assert target.exists() and recorder.calls == [{"seed": 7, "steps": 3, "negative_prompt": "fog"}]


@pytest.mark.parametrize(
    ("request_", "guidance", "says"),
    [
        (Request(), Guidance(image_guidance_scale=2.0), "--image_guidance_scale=2.0"),
        (Request(mask=Path("m.png")), Guidance(), "--mask=m.png"),
        (Request(input=Path("/nowhere")), Guidance(), "--input /nowhere does not exist"),
    ],
)
def test_what_cannot_be_is_refused(request_, guidance, says):
    with pytest.raises(UserError, match=says):
        make_files(request_, guidance)


def test_masks_by_name_or_one_for_all(tmp_path):
    save_image(tmp_path / "in" / "a.png", photo())
    save_image(tmp_path / "mask.png", photo())
    inputs = input_files(tmp_path / "in")
    assert inputs == [(tmp_path / "in" / "a.png", Path("a.png"))]
    assert mask_files(tmp_path / "mask.png", inputs) == [tmp_path / "mask.png"]
    with pytest.raises(UserError, match="a mask for each input"):
        mask_files(tmp_path / "masks", inputs)

"""From what a person gives to the page to what it shows: sizes, limits, messages, examples."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codi_jax.sampling.page.choices import Choice, load_choices
from codi_jax.sampling.page.examples import write_examples
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.page.work import Wish, background, check_picture, make, painted
from codi_jax.sampling.picture_formats import SETTINGS_KEY
from codi_jax.sampling.tiling import Tiling
from codi_jax.tasks.depth import Depth
from codi_jax.tasks.sr import SuperResolution
from codi_jax.typing import UserError

RNG = np.random.default_rng(0)


def photo(folder: Path, height: int = 9, width: int = 12, name: str = "photo.png") -> Path:
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(folder / name)
    return folder / name


@pytest.mark.slow
def test_a_picture_is_made_shown_and_kept(choices: dict[str, Choice], tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    wish = Wish(picture=photo(tmp_path), steps=2, seed=7)
    made = make(
        choices["runs/tiny"], wish, PageOptions(), tmp_path, lambda *done: steps.append(done)
    )
    assert made.before.size == made.after.size == (48, 36)
    assert "12x9 → 48x36" in made.text and "2 steps, seed 7" in made.text and " s" in made.text
    with Image.open(made.file) as file:
        assert file.size == (48, 36) and made.file.name == "photo_sr.png"
        np.testing.assert_array_equal(np.asarray(file), np.asarray(made.after))
        settings = json.loads(file.info[SETTINGS_KEY])
    assert settings["model"] == "runs/tiny" and (settings["steps"], settings["seed"]) == (2, 7)
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.slow
def test_a_large_picture_is_refused_or_reduced(choices: dict[str, Choice], tmp_path: Path) -> None:
    options = PageOptions(max_megapixels=0.001)  # 1,000 pixels
    wish = Wish(picture=photo(tmp_path), steps=1)
    with pytest.raises(UserError, match=r"would have 48x36 pixels, 0\.0 megapixels.*tick"):
        make(choices["runs/tiny"], wish, options, tmp_path)
    made = make(choices["runs/tiny"], dataclasses.replace(wish, reduce=True), options, tmp_path)
    assert made.after.width * made.after.height <= 1000
    assert "reduced to 9x6 pixels first" in made.text
    with pytest.raises(UserError, match=r"^large\.png has 40x30 pixels.*give a smaller one"):
        check_picture(photo(tmp_path, 30, 40, "large.png"), options)


@pytest.mark.slow
def test_what_is_painted_alone_changes(choices: dict[str, Choice], tmp_path: Path) -> None:
    file = photo(tmp_path, 32, 48)
    layer = np.zeros((16, 24, 4), np.uint8)
    layer[4:8, 6:12] = (255, 0, 0, 9)
    wish = Wish(picture=file, layers=(layer,), steps=1)
    made = make(choices["runs/fill"], wish, PageOptions(), tmp_path)
    with Image.open(file) as given:
        changed = (np.asarray(made.after) != np.asarray(given)).any(axis=-1)
    hole = np.zeros((32, 48), bool)
    hole[8:16, 12:24] = True
    assert changed[hole].mean() > 0.9 and not changed[~hole].any()
    with pytest.raises(UserError, match="nothing is painted"):
        make(choices["runs/fill"], dataclasses.replace(wish, layers=()), PageOptions(), tmp_path)


def test_the_mask_has_every_layer_and_the_pictures_size() -> None:
    layers = np.zeros((2, 4, 6, 4), np.uint8)
    layers[0, 0, 0, 3] = layers[1, 3, 5, 3] = 1
    mask = painted(list(layers), (8, 12))
    assert mask.shape == (8, 12) and {*np.unique(mask)} == {0, 255}
    assert mask[:2, :2].all() and mask[6:, 10:].all() and mask[:, 4:8].sum() == 0


def test_messages_have_the_files_name_and_not_its_place(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    for function in (check_picture, background):
        with pytest.raises(UserError, match=r"^text\.png: not an image") as caught:
            function(text, PageOptions())
        assert str(tmp_path) not in str(caught.value)


def test_what_is_painted_on_is_small_enough(tmp_path: Path) -> None:
    assert background(photo(tmp_path, 400, 1200), PageOptions()).size == (768, 256)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"port": 70000}, "--port=70000"),
        ({"max_upload": 0}, "--max_upload=0"),
        ({"max_megapixels": -1.0}, "--max_megapixels=-1"),
        ({"max_waiting": 0}, "--max_waiting=0"),
    ],
)
def test_options_that_cannot_be(changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        PageOptions(**changes)


@pytest.mark.parametrize(
    ("names", "says"),
    [((), "names no model"), (("demo", "demo"), "demo twice"), (("no/such",), "no/such")],
)
def test_models_that_cannot_be(names: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_choices(names, Tiling())


@pytest.mark.slow
def test_labels(choices: dict[str, Choice]) -> None:
    assert choices["runs/tiny"].label == "tiny: sr, 4 times larger"
    assert choices["runs/fill"].label == "fill: inpaint"
    assert choices["runs/fill"].takes_mask and not choices["runs/tiny"].takes_mask
    assert not choices["runs/tiny"].takes_prompt


def test_examples_are_what_the_task_takes(tmp_path: Path) -> None:
    small = [Image.open(path) for path in write_examples(SuperResolution(), tmp_path / "sr")]
    assert len(small) == 3 and {max(image.size) for image in small} == {160}
    depth = [Image.open(path) for path in write_examples(Depth(), tmp_path / "depth")]
    assert len(depth) == 3 and all(image.mode.startswith("I") for image in depth)

"""Transforms of elements with maps beside the picture, and of their strings."""

import numpy as np
import pytest

from codi_jax.data.transforms import Apply, CheckSizes, FillPrompt, Keep, RandomCropFlip
from codi_jax.typing import UserError


def element(height, width):
    """Each pixel of picture and map has one number, its place."""
    places = np.arange(height * width).reshape(height, width)
    image = np.stack([places // 256, places % 256, places * 0], axis=-1).astype(np.uint8)
    return {"image": image, "depth": places.astype(np.uint16), "name": "a.png", "text": "a cat"}


@pytest.mark.parametrize("seed", range(4))
def test_maps_are_cropped_and_mirrored_with_the_picture(seed):
    crop = RandomCropFlip(8, ("image", "depth", "absent"))
    out = crop.random_map(element(20, 30), np.random.default_rng(seed))
    assert out["depth"].shape == (8, 8) and out["depth"].dtype == np.uint16
    image = out["image"].astype(int)
    np.testing.assert_array_equal(image[..., 0] * 256 + image[..., 1], out["depth"])
    plain = RandomCropFlip(8).random_map(element(20, 30), np.random.default_rng(seed))
    np.testing.assert_array_equal(plain["image"], out["image"])


def test_small_maps_are_enlarged_by_the_nearest_pixel():
    out = RandomCropFlip(8, ("image", "depth")).random_map(element(4, 6), np.random.default_rng(0))
    assert out["image"].shape == (8, 8, 3) and out["depth"].shape == (8, 8)
    assert {*out["depth"].ravel()} <= {*range(24)}


def test_maps_of_another_size_are_refused():
    bad = {**element(8, 8), "depth": np.zeros((4, 4), np.uint16)}
    with pytest.raises(UserError, match=r"a\.png.*differ in size"):
        RandomCropFlip(4, ("image", "depth")).random_map(bad, np.random.default_rng(0))
    with pytest.raises(UserError, match=r"a\.png.*differ in size"):
        CheckSizes(("image", "depth")).map(bad)
    assert CheckSizes(("image",)).map(bad) is bad


def test_prompts_are_filled_and_dropped():
    rng = np.random.default_rng(0)
    fill = FillPrompt("a photo of {text}")
    assert fill.random_map(element(4, 4), rng)["prompt"] == "a photo of a cat"
    half = FillPrompt("{text}", 0.5)
    prompts = [half.random_map(element(4, 4), rng)["prompt"] for _ in range(400)]
    assert {*prompts} == {"", "a cat"} and abs(prompts.count("") / 400 - 0.5) < 0.1
    with pytest.raises(UserError, match=r"'caption'.*name, text"):
        FillPrompt("{caption}").random_map(element(4, 4), rng)


def test_keep_and_apply():
    kept = Keep(("image",)).map(element(4, 4))
    assert {*kept} == {"image", "name", "text"}
    applied = Apply(lambda e, rng: {**e, "n": rng.integers(9)})
    assert "n" in applied.random_map({}, np.random.default_rng(0))

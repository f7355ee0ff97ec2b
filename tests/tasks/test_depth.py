"""Depth: normalisation in closed form, scenes whose depth is known, and the shared pairs."""

import json

import numpy as np
import pytest
from PIL import Image

from codi_jax.data import scenes
from codi_jax.data.images import load_depth
from codi_jax.data.sources import make_source
from codi_jax.sample import Sampler
from codi_jax.tasks.depth import RECOVERED_BY, Depth, normalise
from codi_jax.typing import UserError
from configs import depth
from tests.smallest import shrunk


def ramp():
    """Disparities from 0.1 to 1.1 in equal steps, as distances."""
    return 1 / np.linspace(0.1, 1.1, 1001).reshape(7, 143)


def test_normalisation_is_linear_in_disparity_between_the_percentiles():
    """The 1st and 99th percentile of the ramp are 0.11 and 1.09."""
    expected = np.clip((np.linspace(0.1, 1.1, 1001) - 0.11) / 0.98 * 2 - 1, -1, 1).reshape(7, 143)
    np.testing.assert_allclose(normalise(ramp(), "metric"), expected, atol=1e-5)
    np.testing.assert_allclose(normalise(1 / ramp(), "disparity"), expected, atol=1e-5)
    np.testing.assert_allclose(
        normalise(5000 * ramp(), "metric"), expected, atol=1e-4, err_msg="whatever the units"
    )


def test_holes_take_the_nearest_reading():
    values = np.array([[1, 1, 0, 0, 0, 4, 4]] * 3, np.uint16)
    near = normalise(values, "metric")
    np.testing.assert_array_equal(near[1, [0, 1, 2, 4, 5, 6]], [1, 1, 1, -1, -1, -1])
    floats = np.where(values == 0, np.nan, values)
    np.testing.assert_array_equal(normalise(floats, "metric"), near)
    for nothing in (np.zeros((3, 3), np.uint16), np.full((3, 3), 7, np.uint16)):
        np.testing.assert_array_equal(normalise(nothing, "metric"), 0)
    with pytest.raises(UserError, match="3, 3, 3"):
        normalise(np.zeros((3, 3, 3)), "metric")


@pytest.mark.parametrize("index", [0, 7])
def test_a_scenes_depth_can_be_read_off_its_haze(index):
    element = make_source("synthetic:depth", "train")[index]
    known = element["depth"] / scenes.UNITS
    found = scenes.depth_of_haze(element["image"])
    # Blue in 255 steps: d(depth) = 0.5 / (255 HAZE exp(-HAZE depth)), 0.05 m at the back wall.
    np.testing.assert_allclose(found, known, atol=0.06)
    assert known.min() > 0.5 and known.max() - known.min() > 1.5


def test_scenes_are_a_function_of_split_and_index():
    train, held_out = (make_source("synthetic:depth", split) for split in ("train", "eval"))
    np.testing.assert_array_equal(train[3]["image"], train[3]["image"])
    assert (train[3]["image"] != held_out[3]["image"]).any()
    assert (train[3]["image"] != train[4]["image"]).any()
    with pytest.raises(UserError, match="split"):
        scenes.SceneSource("test")


def test_score_is_zero_error_for_the_scene_itself_and_large_for_another():
    task = Depth(recovered_by="haze")
    source = make_source("synthetic:depth", "eval")
    examples = [task.prepare(source[i], np.random.default_rng(0)) for i in range(3)]
    batch = {"near": np.stack([e["near"] for e in examples])}
    pictures = np.stack([e["image"] for e in examples])
    own, other = task.score(pictures, batch), task.score(pictures[::-1], batch)
    assert own["depth_error"] < 0.01 and own["edge_recall"] > 0.9
    assert other["depth_error"] > 5 * own["depth_error"]
    assert other["edge_recall"] < own["edge_recall"]
    assert "depth_error" not in Depth().score(pictures, batch)


def test_messages():
    with pytest.raises(UserError, match="has no depth"):
        Depth().prepare({"name": "a.png", "image": None}, np.random.default_rng(0))
    with pytest.raises(UserError, match="kind='inches'"):
        Depth(kind="inches")


@pytest.mark.slow
def test_the_shared_pairs_go_through(shared_data, tiny_model):
    """All 12 RGB-D pairs, at an eighth of their size; the sensor left holes."""
    sampler = Sampler(tiny_model(shrunk(depth.get_config("tiny"))))
    folder = shared_data / "depth"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    holes = []
    for row in rows:
        values = load_depth(folder / row["depth_file_name"])
        assert values.dtype == np.uint16
        holes.append((values == 0).any())
        near = normalise(values, "metric")
        assert near.min() == -1 and near.max() == 1
        small = values[::8, ::8]
        assert sampler(small, steps=1).shape == (*small.shape, 3)
    assert sum(holes) >= 6, "most have holes"
    picture = sampler(Image.fromarray(small), steps=1)
    np.testing.assert_array_equal(np.asarray(picture), sampler(small, steps=1))
    with pytest.raises(UserError, match="a depth map: depth must be grey"):
        sampler(Image.new("RGB", (8, 8)))


def test_depth_error_is_a_share_of_the_range(monkeypatch):
    depth = np.linspace(1.0, 2.0, 64, dtype=np.float32).reshape(8, 8)
    monkeypatch.setitem(RECOVERED_BY, "haze", lambda picture: depth)
    near, pictures = normalise(depth, "metric")[None], np.zeros((1, 8, 8, 3), np.uint8)
    task = Depth(recovered_by="haze")
    assert task.score(pictures, {"near": near})["depth_error"] == 0.0
    # The opposite map differs by 2 |near|, of a range of 2.
    opposite = task.score(pictures, {"near": -near})["depth_error"]
    assert opposite == pytest.approx(np.abs(near).mean(), rel=1e-5)

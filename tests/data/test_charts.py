"""Colour charts among the training pictures, and inputs that are clean."""

import numpy as np

from codi_jax.data import charts, images
from codi_jax.data.degradation import Bicubic, SecondOrder, degrade
from codi_jax.data.transforms import Degrade
from codi_jax.run.config import build_task
from configs import sr


def photo(seed, side=32):
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return {"image": image, "name": f"{seed}.png", "text": ""}


def kind(chart):
    """Which of the four it may be; a photo counts as a gradient."""
    colours = len(np.unique(chart.reshape(-1, 3), axis=0))
    return "flat" if colours == 1 else "few" if colours <= 64 else "gradient"


def test_charts_are_of_all_kinds_and_saturated():
    rng = np.random.default_rng(0)
    made = [charts.chart(48, rng) for _ in range(200)]
    assert all(chart.shape == (48, 48, 3) and chart.dtype == np.uint8 for chart in made)
    kinds = [kind(chart) for chart in made]
    for name, low, high in (("flat", 30, 75), ("few", 70, 130), ("gradient", 25, 75)):
        assert low < kinds.count(name) < high, name
    flat = {tuple(chart[0, 0]) for chart in made if kind(chart) == "flat"}
    assert len(flat & {(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)}) > 1
    # Stripes of one pixel are among them: neighbours along one side differ everywhere.
    assert any((np.diff(chart.astype(int), axis=1) != 0).any(-1).all() for chart in made)


def test_so_many_pictures_give_way_to_charts():
    replace = charts.ReplaceByChart(0.25, 16)
    rng = np.random.default_rng(0)
    elements = [replace.random_map(photo(0), rng) for _ in range(400)]
    kept = sum(element["image"].shape == (32, 32, 3) for element in elements)
    assert 270 < kept < 330
    assert {element["name"] for element in elements} == {"0.png"}


def test_without_clean_inputs_nothing_more_is_drawn():
    element, config = photo(1), SecondOrder()
    made = Degrade(config).random_map(element, np.random.default_rng(3))["lr"]
    wanted = degrade(images.to_float(element["image"]), np.random.default_rng(3), config)
    np.testing.assert_array_equal(made, wanted)


def test_so_many_inputs_are_clean():
    step = Degrade(SecondOrder(), clean_share=0.3)
    clean = 0
    for seed in range(100):
        element = photo(seed)
        made = step.random_map(element, np.random.default_rng(seed))["lr"]
        again = step.random_map(element, np.random.default_rng(seed))["lr"]
        np.testing.assert_array_equal(made, again)
        hr, rng = images.to_float(element["image"]), np.random.default_rng(0)
        clean += np.array_equal(made, degrade(hr, rng, Bicubic()))
    assert 18 < clean < 42


def test_clean_inputs_are_for_training_alone():
    task = build_task(sr.get_config())
    assert task.clean_share == 0.3
    (train,) = [t for t in task.transforms(32, train=True) if isinstance(t, Degrade)]
    assert train.clean_share == 0.3
    for held_out in (task.transforms(32, train=False), task.whole_frames()):
        assert [t.clean_share for t in held_out if isinstance(t, Degrade)] == [0.0]
    # The config of a run from before there was such a share.
    old = {"scale": 4, "degradation": "bicubic"}
    assert type(task).from_config({}, old).clean_share == 0.0

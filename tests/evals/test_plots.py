import numpy as np
import pytest
from PIL import Image

from codi_jax.evals.plots import metric_vs_metric, quality_vs_steps
from codi_jax.typing import UserError

CURVES = {
    "a": {1: {"psnr": 20.0, "fid": 40.0}, 4: {"psnr": 24.0, "fid": 20.0}},
    "b": {2: {"psnr": 21.0, "fid": 30.0}},
}


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_one_panel_per_metric(tmp_path):
    path = tmp_path / "new" / "q.png"
    baselines = {"bicubic": {"psnr": 19.0, "fid": 60.0}}
    quality_vs_steps(CURVES, {"psnr": True, "fid": False}, path, baselines)
    two = read(path)
    quality_vs_steps(CURVES, {"psnr": True}, path)
    one = read(path)
    assert two.shape[0] == one.shape[0]
    assert two.shape[1] == 2 * one.shape[1]
    many = {f"m{i}": True for i in range(5)}
    points = {n: dict.fromkeys(many, float(n)) for n in (1, 2)}
    quality_vs_steps({"a": points}, many, path)
    assert read(path).shape[:2] == (2 * one.shape[0], 4 * one.shape[1])


def test_metric_against_metric(tmp_path):
    path = tmp_path / "v.png"
    metric_vs_metric(CURVES, "psnr", "fid", path)
    picture = read(path)
    colours = {tuple(c) for c in picture.reshape(-1, 3)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours  # both lines, in matplotlib's first colours
    with pytest.raises(UserError, match="'swd' cannot be plotted"):
        metric_vs_metric(CURVES, "psnr", "swd", path)

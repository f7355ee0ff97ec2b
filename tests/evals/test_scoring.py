import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from codi_jax.evals import image_metrics, networks, scoring
from codi_jax.evals.distributions import fid, kid, swd
from codi_jax.evals.metrics import METRICS, WEIGHT_FREE
from codi_jax.evals.networks import Networks
from codi_jax.evals.results import Score
from codi_jax.evals.scoring import OwnMeasures, Scorer
from codi_jax.evals.statistics import bootstrap_interval

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def photos():
    photo = data.astronaut()
    return [photo[i : i + 40, i : i + 48] for i in range(0, 250, 50)]


@pytest.fixture(scope="module")
def blurred(photos):
    return [ndimage.gaussian_filter(x, (1.5, 1.5, 0)) for x in photos]


class FakeInception:
    """Means and deviations of the channels as features."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, images):
        return np.stack([np.r_[x.mean((0, 1)), x.std((0, 1))] for x in images]).astype(np.float32)


def test_every_metric_is_documented():
    rows = dict(re.findall(r"^\| `(\w+)` \| (higher|lower) ", DOCS.read_text(), re.MULTILINE))
    directions = {k: "higher" if m.higher_is_better else "lower" for k, m in METRICS.items()}
    assert rows == directions


def test_the_default_needs_no_weights(photos, blurred, tmp_path):
    scorer = Scorer(photos, Networks(None, tmp_path), border=2)
    assert list(scorer.metrics) == [n for n in WEIGHT_FREE if n != "ms_ssim"]
    assert scorer.warnings == [
        "ms_ssim is left out: the smallest image has 36 of the 161 pixels a side that it needs"
    ]
    scores = scorer({"blurred": blurred})["blurred"]
    assert list(scores) == list(scorer.metrics)
    one_by_one = image_metrics.scores_per_image(blurred, photos, ["psnr_y"], 2)["psnr_y"]
    assert scores["psnr_y"].value == pytest.approx(one_by_one.mean())
    assert scores["psnr_y"].interval == bootstrap_interval(one_by_one)
    assert scores["swd"] == Score(value=swd(blurred, photos))
    assert scorer({"equal": photos})["equal"]["psnr"] == Score(
        value=math.inf, interval=(math.inf, math.inf)
    )
    large = [data.chelsea()[:170, :170]]
    assert Scorer(large, Networks(None, tmp_path)).metrics == {n: METRICS[n] for n in WEIGHT_FREE}


def test_fid_and_kid_share_a_network_and_few_images_warn(photos, blurred, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "InceptionFeatures", FakeInception)
    loaded = Networks(["kid", "fid"], tmp_path)
    assert loaded["fid"] is loaded["kid"]
    scorer = Scorer(photos, loaded)
    scores = scorer({"blurred": blurred})["blurred"]
    features = [FakeInception(None)(x) for x in (blurred, photos)]
    assert scores["fid"].value == pytest.approx(fid(*features))
    assert scores["kid"].value == pytest.approx(kid(*features))
    assert list(scores) == ["fid", "kid"]
    assert [w[:14] for w in scorer.warnings] == ["fid of 5 refer", "fid of 5 image"]
    monkeypatch.setattr(scoring.distributions, "FEW", 5)
    assert Scorer(photos, loaded).warnings == []


def test_own_measures_stand_beside_the_metrics(photos, blurred):
    """One number for all images, or one for each; not where an image has none."""

    def measure(images):
        brightest = [float(image.max()) for image in images]
        return {"all": max(brightest), "each": brightest, "some": [*brightest[1:], None]}

    directions = {"all": True, "each": False, "some": True, "none": True}
    own = OwnMeasures(measure=measure, directions=directions, per_image=True)
    scorer = Scorer(photos, Networks(["psnr"]), own=own, keep_values=True)
    columns = {"a": blurred, "b": photos}
    scores = scorer(columns)
    for name, images in columns.items():
        brightest = [float(image.max()) for image in images]
        assert list(scores[name]) == ["psnr", "all", "each"]
        assert scores[name]["all"] == Score(value=max(brightest))
        assert scores[name]["each"].values == tuple(brightest)
        assert scores[name]["each"].interval == bootstrap_interval(brightest)
    assert "some is left out: only 4 of 5 images have it" in scorer.warnings
    results = scorer.results({"m": {1: scores["a"]}}, "sr", {"seed": 1})
    assert results.images == 5 and results.warnings == tuple(scorer.warnings)
    assert list(results.metrics) == ["psnr", "all", "each"]
    assert not results.metrics["each"].higher_is_better
    alone = Scorer(photos, None, own=own)({"a": blurred})["a"]
    assert list(alone) == ["all", "each"] and alone["each"].values is None


def test_equal_pairs_are_named(photos, blurred):
    class Files(list):
        names = ("a.png", "b.png", "c.png", "d.png", "e.png")

    images = Files([*photos[:1], *blurred[1:]])
    scorer = Scorer(photos, Networks(["psnr", "psnr_y", "ssim"]))
    scores = scorer({"x": images})["x"]
    assert scores["psnr"].value == math.inf and scores["psnr"].interval[1] == math.inf
    assert math.isfinite(scores["psnr"].interval[0]) and math.isfinite(scores["ssim"].value)
    assert [w.split(",")[0] for w in scorer.warnings] == ["psnr is infinite", "psnr_y is infinite"]
    assert "1 of 5 images are equal to their references: a.png;" in scorer.warnings[0]
    content = scores["psnr"].to_json()
    assert content["interval"][1] == "inf" and Score.from_json(content) == scores["psnr"]


def test_own_measures_of_equal_pairs_are_named_too(photos):
    own = OwnMeasures(
        measure=lambda images: {"hole_psnr": [math.inf, math.inf, *[30.0] * (len(images) - 2)]},
        directions={"hole_psnr": True},
        per_image=True,
    )
    scorer = Scorer(photos, None, own=own)
    assert scorer({"x": photos})["x"]["hole_psnr"].value == math.inf
    assert "hole_psnr is infinite, for 2 of 5" in scorer.warnings[0]
    assert "image 0, image 1;" in scorer.warnings[0]

"""NIQE against BasicSR's and pyiqa's programs, and its parts against what they approximate."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from codi_jax.checkpoint.files import open_tensors, read_metadata
from codi_jax.evals import niqe
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.networks import Networks
from codi_jax.evals.scoring import Scorer
from codi_jax.typing import UserError


@pytest.fixture(scope="module")
def photo():
    return data.astronaut()


#: Photos without flat areas, and what benchmarks/calibration.py has other programs say of them:
#: BasicSR 1.4.2 of MATLAB's grey, and of the photo itself.
PHOTOS = {
    "motorcycle": (lambda: data.stereo_motorcycle()[0][100:292, 200:488], 3.50410, 3.43925),
    "chelsea": (lambda: data.chelsea()[50:242, 60:348], 2.86517, 2.92485),
    "coffee": (lambda: data.coffee()[100:292, 200:488], 6.26231, 6.35567),
}


@pytest.mark.parametrize("name", PHOTOS)
def test_it_is_what_another_program_says(name):
    load, grey, luma = PHOTOS[name]
    scores = niqe.scores_per_image([load()], ["niqe", "niqe_y"])
    assert scores["niqe"][0] == pytest.approx(grey, abs=5e-4)
    assert scores["niqe_y"][0] == pytest.approx(luma, abs=1e-4)


def test_the_parameters_are_the_published_ones():
    digest = "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"
    assert read_metadata(niqe.NATURAL)["sha256"] == digest  # of basicsr's niqe_pris_params.npz
    with open_tensors(niqe.NATURAL) as file:
        mean, covariance = file.read("mean"), file.read("covariance")
    assert mean.shape == (36,) and mean.dtype == covariance.dtype == np.float64
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_what_is_left_over_beside_the_blocks_does_not_count(photo):
    assert niqe.niqe(photo[:200, :300]) == niqe.niqe(photo[:192, :288])


def test_blur_and_noise_are_unnatural(photo):
    crop = photo[:192, 96:384]
    blurred = ndimage.gaussian_filter(crop, (2, 2, 0))
    noise = np.random.default_rng(0).normal(0, 25, crop.shape)
    noisy = np.clip(crop + noise, 0, 255).astype(np.uint8)
    scores = niqe.scores_per_image([crop, blurred, noisy], ["niqe", "niqe_y"])
    for values in scores.values():
        assert values[0] + 1 < min(values[1:])


def test_two_blocks_are_needed(photo):
    assert niqe.niqe(photo[:96, :192]) > 0
    with pytest.raises(UserError, match="95x300 is too small for NIQE.*at least 96x192"):
        niqe.scores_per_image([photo[:96, :192], photo[:95, :300]], ["niqe"])
    with pytest.raises(UserError, match="191x191"):
        niqe.niqe_y(photo[:191, :191])


def test_flat_pictures_have_no_value_and_are_named(photo, tmp_path):
    flat = np.full((96, 192, 3), 128, np.uint8)
    half = flat.copy()
    half[:, :96] = photo[:96, :96]  # one block with structure is too few as well
    assert np.isnan(niqe.niqe(flat)) and np.isnan(niqe.niqe_y(half))
    scorer = Scorer(None, Networks(["niqe", "niqe_y"], tmp_path))
    scores = scorer({"images": [photo[:96, :192], flat]})["images"]
    assert np.isnan(scores["niqe"].value) and scores["niqe"].to_json()["value"] == "nan"
    assert "niqe is not defined for 1 of 2 images, which are flat: image 1" in scorer.warnings[0]
    results = scorer.results({"images": {None: scores}})
    assert results.images == 2 and results.metrics == {n: METRICS[n] for n in ("niqe", "niqe_y")}


def test_ground_truth_is_asked_for_where_a_metric_needs_it(tmp_path):
    with pytest.raises(UserError, match="^psnr, swd: these are .*--reference"):
        Scorer(None, Networks(["niqe", "psnr", "swd"], tmp_path))
    with pytest.raises(
        UserError,
        match=r"^psnr, ssim, psnr_y, \.\.\.: .* none: clip, niqe, ",
    ):
        Scorer(None, Networks(None, tmp_path))


def test_half_the_size_is_a_wide_bicubic_filter(photo):
    """Pillow's antialiased bicubic has the same weights, but other borders."""
    plane = photo[:64, :96, 0].astype(np.float64)
    pillow = Image.fromarray(plane.astype(np.float32)).resize((48, 32), Image.Resampling.BICUBIC)
    inside = (slice(2, -2),) * 2
    np.testing.assert_allclose(niqe._half(plane)[inside], np.array(pillow)[inside], atol=1e-4)
    mirrored = np.pad(plane, 8, mode="symmetric")
    np.testing.assert_allclose(niqe._half(plane), niqe._half(mirrored)[4:-4, 4:-4], atol=1e-9)


@pytest.mark.parametrize(("draw", "shape"), [("normal", 2.0), ("laplace", 1.0)])
def test_the_fit_finds_the_distribution(draw, shape):
    """A generalised Gaussian of shape 2 has the scale sqrt(2) sigma, of shape 1 Laplace's own."""
    rng = np.random.default_rng(0)
    sizes = np.abs(getattr(rng, draw)(size=(2, 200, 200)))
    # The second is twice as wide to the right, and so are two thirds of it there.
    values = [
        sizes[0] * rng.choice([-1, 1], (200, 200)),
        sizes[1] * rng.choice([-1, 2], (200, 200), p=[1 / 3, 2 / 3]),
    ]
    found, left, right = niqe._fit(np.stack(values))
    scale = np.sqrt(2) if shape == 2 else 1.0
    assert found == pytest.approx(shape, rel=0.05)
    assert left == pytest.approx(scale, rel=0.05)
    assert right[0] == pytest.approx(scale, rel=0.05)
    assert right[1] / left[1] == pytest.approx(2, rel=0.05)

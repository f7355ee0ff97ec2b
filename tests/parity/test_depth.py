"""The depth column of `prepare`, by a tiny model of the transformers library."""

import numpy as np
import pytest

from codi_jax.data import images, sources
from codi_jax.data.depth import DepthEstimator
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.typing import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("glpn")
    config = transformers.GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    torch.manual_seed(0)
    transformers.GLPNForDepthEstimation(config).save_pretrained(path)
    transformers.GLPNImageProcessor().save_pretrained(path)
    return str(path)


def test_depth_fills_sixteen_bits(model):
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    depth = DepthEstimator(model)(image)
    assert depth.shape == (64, 96) and depth.dtype == np.uint16
    assert depth.min() == 0 and depth.max() == 65535
    network = transformers.GLPNForDepthEstimation.from_pretrained(model).eval()
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255.0))
    with torch.no_grad():
        expected = network(pixels).predicted_depth[0].numpy()
    expected = (expected - expected.min()) / np.ptp(expected) * 65535
    assert np.abs(depth - expected).max() <= 2


def test_prepare_adds_the_column(model, tmp_path):
    for i in range(2):
        image = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        images.save_image(tmp_path / "in" / f"{i}.png", image)
    source = sources.FolderSource(tmp_path / "in")
    prepare(source, tmp_path / "out", PrepareConfig(depth=model, crop=32), label="x")
    prepared = sources.make_source(str(tmp_path / "out" / "*.array_record"), "train")
    assert len(prepared) == 8
    whole = DepthEstimator(model)(source[1]["image"])
    np.testing.assert_array_equal(prepared[7]["depth"], whole[32:, 32:])
    assert prepared[7]["depth"].dtype == np.uint16


def test_a_model_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no depth estimation model"):
        DepthEstimator(str(tmp_path))

"""Inpainting: what the condition sees, what stays, and how the hole is scored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from codi_jax.checkpoint.directory import load_directory, save_directory
from codi_jax.data.images import load_image
from codi_jax.data.masks import MASKS
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.sample import Sampler
from codi_jax.tasks.inpaint import Inpainting, mean_fill, smooth_fill
from codi_jax.typing import UserError
from configs import inpaint
from tests.smallest import shrunk


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(shrunk(inpaint.get_config("tiny")))


@pytest.fixture(scope="module")
def sampler(model):
    # One tile for all the small pictures here, and so one compilation.
    return Sampler(model, tile=64)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def hole(height, width):
    mask = np.zeros((height, width), np.uint8)
    mask[2 : height // 2, 3:] = 255
    return mask


def test_the_condition_knows_nothing_of_the_hole(model):
    """Whatever is in the hole, the condition is the same; and it says where the hole is."""
    vae, task = AutoencoderKL(model.vae), Inpainting()
    mask, image = hole(16, 16), photo(16, 16)
    other = np.where(mask[..., None] > 127, photo(16, 16, 1), image)
    batch = {"image": np.stack([image, other]), "mask": np.stack([mask, mask])}
    cond = jax.device_get(
        task.condition(vae, model.params["vae"], jax.tree.map(jnp.asarray, batch))
    )
    assert cond["image"].shape == (2, 16, 16, task.image_channels())
    assert cond["latents"].shape == (2, 8, 8, task.latent_channels(model.vae.latent_channels))
    np.testing.assert_allclose(cond["image"][0], cond["image"][1], atol=1e-6)
    np.testing.assert_allclose(cond["latents"][0], cond["latents"][1], atol=1e-5)
    np.testing.assert_array_equal(cond["image"][0, ..., 3] > 0, mask > 127)
    share = cond["latents"][0, ..., -1]
    assert share[2, 1] == 0.5, "the hole starts at column 3, in the middle of latent 1"
    assert share[2, 2] == 1 and share[7, 7] == 0


@pytest.mark.parametrize("size", [(16, 16), (13, 19)])
def test_known_pixels_are_the_users_at_any_size(sampler, size):
    image, mask = photo(*size), hole(*size)
    result = sampler(image, steps=1, mask=mask)
    assert result.shape == image.shape
    np.testing.assert_array_equal(result[mask == 0], image[mask == 0])
    assert (result[mask > 0] != image[mask > 0]).any()


def test_masks_of_all_kinds_are_taken(sampler):
    image, mask = photo(16, 16), hole(16, 16)
    expected = sampler(image, steps=1, mask=mask)
    picture = sampler(Image.fromarray(image), steps=1, mask=Image.fromarray(mask))
    np.testing.assert_array_equal(np.asarray(picture), expected)
    np.testing.assert_array_equal(sampler(image, steps=1, mask=mask > 0), expected)
    # Each picture goes through alone, by one program: equal bits.
    one_each = sampler([image, image], steps=1, mask=[mask, np.zeros_like(mask)])
    np.testing.assert_array_equal(one_each[0], expected)
    np.testing.assert_array_equal(one_each[1], image)
    with pytest.raises(UserError, match="needs a mask"):
        sampler(image)
    with pytest.raises(UserError, match="8x8"):
        sampler(image, mask=mask[:8, :8])
    with pytest.raises(UserError, match="3 masks for 2"):
        sampler([image, image], mask=[mask] * 3)
    with pytest.raises(UserError, match="floats has values from 0 to 255"):
        sampler(image, mask=mask / 1)


def test_scores_are_of_the_hole_alone():
    task, image, mask = Inpainting(), photo(12, 12), hole(12, 12)
    batch = {"image": image[None], "mask": mask[None]}
    off = image.copy()
    inside = mask > 127
    off[inside] = np.where(image[inside] < 128, image[inside] + 10, image[inside] - 10)
    expected = 10 * np.log10(255**2 / 100)
    assert task.score(off[None], batch)["hole_psnr"] == pytest.approx(expected)
    wild = off.copy()
    wild[~inside] = 0
    assert task.score(wild[None], batch)["hole_psnr"] == pytest.approx(expected)
    np.testing.assert_array_equal(task.finish(wild, {"image": image, "mask": mask}), off)


def test_smooth_fill_is_exact_for_constants_and_reads_the_known_alone():
    mask = hole(16, 12)
    known = (mask == 0).astype(np.float32)[None, ..., None]
    flat = np.full((1, 16, 12, 3), 0.25, np.float32)
    junk = np.where(known > 0, flat, np.float32(1e6))
    np.testing.assert_allclose(smooth_fill(jnp.asarray(junk), known), flat, atol=1e-6)
    # A single known pixel is everywhere.
    one = np.zeros_like(known)
    one[0, 3, 5] = 1
    image = np.random.default_rng(0).normal(size=flat.shape).astype(np.float32)
    filled = smooth_fill(jnp.asarray(image), one)
    np.testing.assert_allclose(filled, np.broadcast_to(image[:, 3:4, 5:6], flat.shape), atol=1e-6)
    # By hand: the unknown pixels of a half-known 2x2 picture get the mean of the others.
    image = jnp.asarray([[[[1.0], [3.0]], [[9.0], [9.0]]]])
    known = jnp.asarray([[[[1.0], [1.0]], [[0.0], [0.0]]]])
    np.testing.assert_allclose(smooth_fill(image, known)[0, :, :, 0], [[1, 3], [2, 2]], 1e-6)


def test_mean_fill():
    image, mask = photo(12, 12), hole(12, 12)
    filled = mean_fill(image, mask)
    np.testing.assert_array_equal(filled[mask == 0], image[mask == 0])
    mean = image[mask == 0].astype(float).mean(axis=0)
    np.testing.assert_allclose(filled[mask > 0], np.tile(mean, ((mask > 0).sum(), 1)), atol=0.5)
    assert (mean_fill(image, np.full_like(mask, 255)) == 128).all()


def test_a_mask_in_the_data_is_used_where_it_has_a_hole():
    task, rng = Inpainting(masks=("half",)), np.random.default_rng(0)
    image = photo(8, 8)
    mask = hole(8, 8)
    np.testing.assert_array_equal(task.prepare({"image": image, "mask": mask}, rng)["mask"], mask)
    for element in ({"image": image}, {"image": image, "mask": np.zeros_like(mask)}):
        assert (task.prepare(element, rng)["mask"] > 127).mean() == 0.5
    with pytest.raises(UserError, match="magic"):
        Inpainting(masks=("magic",)).prepare({"image": image}, rng)


@pytest.mark.parametrize("kind", MASKS)
def test_drawn_holes(kind):
    """Never all of the picture, binary, and not two alike."""
    masks = [MASKS[kind](40, 60, np.random.default_rng(seed)) for seed in range(12)]
    for mask in masks:
        assert mask.shape == (40, 60) and mask.dtype == np.uint8
        assert {*np.unique(mask)} <= {0, 255} and not mask.all()
    assert len({mask.tobytes() for mask in masks}) >= (4 if kind == "half" else 12)
    assert 0.02 < np.mean([mask.mean() / 255 for mask in masks]) < 0.6


def test_the_shared_pairs_go_through(shared_data, sampler):
    """All 8 photos with object masks, at an eighth of their size."""
    files = sorted((shared_data / "inpaint").glob("*_mask.png"))
    assert len(files) == 8
    for file in files:
        image = load_image(file.with_name(file.name.replace("_mask", "")))[::8, ::8]
        mask = np.asarray(Image.open(file).convert("L"))[::8, ::8]
        result = sampler(image, steps=1, mask=mask)
        np.testing.assert_array_equal(result[mask <= 127], image[mask <= 127])
        assert (result != image).any()


def test_a_saved_model_is_the_same_and_claims_no_pipeline_in_pytorch(model, tmp_path):
    save_directory(tmp_path / "m", model)
    again = load_directory(tmp_path / "m")
    assert again.network.adapter.extra_latents == 1
    assert again.task == "inpaint" and not (tmp_path / "m" / "pipeline.py").exists()
    kernels = [p.params["adapter"]["conv_in"]["kernel"] for p in (model, again)]
    np.testing.assert_array_equal(*kernels)

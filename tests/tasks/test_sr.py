"""Super-resolution: settings from the config, examples, the condition, what must be beaten."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from codi_jax.data.images import resize
from codi_jax.run.config import build_task
from codi_jax.tasks.sr import SuperResolution
from codi_jax.typing import UserError
from configs import sr


class Encoder:
    """An autoencoder whose latents are each 2x2 block's mean."""

    def apply(self, variables, image, *, method):
        assert variables == {"params": "parameters"} and method == "encode"
        b, h, w, c = image.shape
        return image.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def test_scale_and_degradation_come_from_the_data_s_settings():
    config = sr.get_config("tiny")
    config.data.scale, config.data.degradation = 2, "bicubic"
    assert build_task(config) == SuperResolution(scale=2, degradation="bicubic")


def test_examples_are_degraded_by_the_scale():
    image = np.random.default_rng(0).integers(0, 256, (50, 41, 3), np.uint8)
    task = SuperResolution(scale=3, degradation="bicubic")

    def through(transforms):
        element = {"image": image, "name": "a"}
        for transform in transforms:
            draws = hasattr(transform, "random_map")
            rng = (np.random.default_rng(0),) if draws else ()
            element = (transform.random_map if draws else transform.map)(element, *rng)
        return element

    crop, whole = through(task.transforms(24, train=True)), through(task.whole_frames())
    assert crop["image"].shape == (24, 24, 3) and crop["lr"].shape == (8, 8, 3)
    assert whole["image"].shape == (48, 39, 3) and whole["lr"].shape == (16, 13, 3)
    # Rounding differs by one: the degradation resizes in floating point.
    bicubic = resize(whole["image"], (16, 13), "bicubic").astype(int)
    np.testing.assert_allclose(whole["lr"].astype(int), bicubic, atol=1)


def test_the_condition_is_the_enlarged_picture_and_its_latents(unchecked):
    lr = jnp.asarray([[[[0] * 3, [0] * 3], [[255] * 3, [255] * 3]]], jnp.uint8)
    found = SuperResolution(scale=4).condition(Encoder(), "parameters", {"lr": lr})
    assert found["image"].shape == (1, 8, 8, 3) and found["latents"].shape == (1, 4, 4, 3)
    image = np.asarray(found["image"])
    assert image.min() >= -1 and image.max() <= 1  # bicubic overshoots: clipped
    np.testing.assert_allclose(image[0, [0, -1], 0, 0], [-1, 1], atol=1e-5)
    np.testing.assert_array_equal(
        found["latents"], Encoder().apply({"params": "parameters"}, image, method="encode")
    )


def test_what_the_user_gives_and_what_is_shown():
    task, picture = SuperResolution(scale=2), np.full((4, 5, 3), 7, np.uint8)
    assert task.from_user(picture) == {"lr": picture}
    with pytest.raises(UserError, match="takes no mask"):
        task.from_user(picture, mask=picture[..., 0])
    lr = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    batch = {"lr": lr, "image": np.zeros((2, 8, 8, 3), np.uint8)}
    assert task.inputs(batch)["input"] is lr
    bicubic = task.baselines(batch)["bicubic"]
    np.testing.assert_array_equal(bicubic[1], resize(lr[1], (8, 8), "bicubic"))
    assert bicubic.shape == (2, 8, 8, 3)
    lanczos = task.more_baselines(batch)["lanczos"]
    sharper = Image.fromarray(lr[1]).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(lanczos[1], sharper)
    assert (lanczos != bicubic).any()

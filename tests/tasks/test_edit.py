"""Editing: instructions as numbers, triples, and what guidance takes away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.data.edits import EDITS, draw_edit, edit_of
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.sample import Sampler
from codi_jax.tasks.edit import Editing, instruction_features
from codi_jax.typing import UserError
from configs import edit
from tests.smallest import shrunk


def photo(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_model):
    model = tiny_model(shrunk(edit.get_config("tiny")))
    # As if trained: the condition counts, and so do its new channels.
    conv = model.params["adapter"]["conv_in"]
    conv["kernel"] = (
        conv["kernel"]
        .at[:, :, 4:]
        .set(0.3 * jax.random.normal(jax.random.key(1), conv["kernel"][:, :, 4:].shape))
    )
    model.params["adapter"]["mu"] += 0.5
    return model


def test_features_are_the_normalised_sum_of_the_words():
    day, night = (instruction_features(text, 64) for text in ("day", "night"))
    assert {*np.unique(day)} == {-1, 1} and (day != night).any()
    both = instruction_features("Day, NIGHT!", 64)
    np.testing.assert_allclose(both * np.sqrt(np.mean((day + night) ** 2)), day + night, rtol=1e-5)
    np.testing.assert_allclose(np.mean(both**2), 1, rtol=1e-5)
    np.testing.assert_array_equal(instruction_features("night day", 64), both)
    np.testing.assert_array_equal(instruction_features("...", 8), 0)
    assert instruction_features("night", 0).shape == (0,)


def test_instructions_of_the_set_are_told_apart():
    texts = [text for e in EDITS.values() for text in e.instructions]
    assert len({*texts}) == len(texts)
    features = np.stack([instruction_features(text, 16) for text in texts])
    distances = np.square(features[:, None] - features[None]).mean(-1) + np.eye(len(texts))
    assert distances.min() > 0.1


def test_edits_against_closed_forms():
    image = np.array([[[200, 100, 0]]], np.uint8)
    grey = round(0.299 * 200 + 0.587 * 100)
    np.testing.assert_array_equal(EDITS["grey"](image), [[[grey] * 3]])
    np.testing.assert_array_equal(EDITS["negative"](image), [[[55, 155, 255]]])
    np.testing.assert_array_equal(EDITS["warm"](image), [[[250, 95, 0]]])
    np.testing.assert_array_equal(EDITS["night"](image), [[[50, 35, 0]]])
    instruction, edited = draw_edit(image, np.random.default_rng(0))
    np.testing.assert_array_equal(edited, edit_of(instruction)(image))
    assert edit_of("make it a cat") is None


def test_triples_come_from_the_data_or_are_made():
    task, rng = Editing(), np.random.default_rng(0)
    image, edited = photo(), photo(1)
    for key in ("instruction", "edit_prompt"):
        example = task.prepare({"image": image, "edited": edited, key: "add a hat"}, rng)
        assert example["source"] is image and example["image"] is edited
        assert example["instruction"] == "add a hat"
    made = task.prepare({"image": image}, rng)
    np.testing.assert_array_equal(made["image"], edit_of(made["instruction"])(image))
    np.testing.assert_array_equal(
        made["instruction_features"], instruction_features(made["instruction"], 16)
    )
    with pytest.raises(UserError, match="no instruction"):
        task.prepare({"image": image, "edited": edited, "name": "a.png"}, rng)


def test_training_drops_picture_and_instruction_independently():
    task, rng = Editing(drop=0.3), np.random.default_rng(0)
    example = task.from_user(photo(), prompt="make it night")
    lost = [task.augment(example, rng) for _ in range(600)]
    no_source = np.array([e["keep_source"] == 0 for e in lost])
    no_text = np.array([not e["instruction_features"].any() for e in lost])
    for share, expected in ((no_source, 0.3), (no_text, 0.3), (no_source & no_text, 0.09)):
        assert abs(share.mean() - expected) < 0.06
    assert example["keep_source"] == 1 and example["instruction_features"].any()


def test_condition_holds_source_and_instruction(model):
    task, vae = Editing(), AutoencoderKL(model.vae)
    full = task.from_user(photo(), prompt="make it night")
    examples = [full, task.without_prompt(full), task.without_picture(full)]
    batch = {name: np.stack([e[name] for e in examples]) for name in task.reads}
    cond = jax.device_get(
        task.condition(vae, model.params["vae"], jax.tree.map(jnp.asarray, batch))
    )
    channels = model.vae.latent_channels
    assert cond["image"].shape == (3, 16, 16, task.image_channels())
    assert cond["latents"].shape == (3, 8, 8, task.latent_channels(channels))
    np.testing.assert_array_equal(cond["latents"][0, 3, 5, channels:], full["instruction_features"])
    assert not cond["latents"][1, ..., channels:].any() and cond["latents"][1].any()
    assert not cond["latents"][2, ..., :channels].any() and not cond["image"][2, ..., :3].any()
    np.testing.assert_allclose(
        cond["latents"][0, ..., :channels], cond["latents"][1, ..., :channels], atol=1e-5
    )


def test_results_depend_on_the_instruction_and_on_both_guidances(model):
    sampler, image = Sampler(model), photo()
    night = sampler(image, steps=1, prompt="make it night")
    assert night.shape == image.shape
    assert (sampler(image, steps=1, prompt="add fog") != night).any()
    text = sampler(image, steps=1, prompt="make it night", guidance_scale=3.0)
    both = sampler(
        image, steps=1, prompt="make it night", guidance_scale=3.0, image_guidance_scale=1.5
    )
    assert (text != night).any() and (both != text).any()
    with pytest.raises(UserError, match="needs an instruction"):
        sampler(image)
    with pytest.raises(UserError, match="text encoder"):
        sampler(image, prompt="make it night", negative_prompt="day")


def test_accuracy_counts_results_nearest_to_what_was_asked():
    task, source = Editing(), photo()
    texts = ["make it night", "add fog", "make it warmer"]
    batch = {"source": np.stack([source] * 3), "instruction": np.array(texts)}
    right = np.stack([edit_of(text)(source) for text in texts])
    assert task.score(right, batch) == {"edit_accuracy": 1.0}
    assert task.score(right[[0, 0, 0]], batch)["edit_accuracy"] == pytest.approx(1 / 3)
    assert task.score(batch["source"], batch) == {"edit_accuracy": 0.0}
    batch["instruction"][1] = "add a hat"
    assert task.score(right, batch) == {}
    assert task.inputs(batch)["instruction"].shape == (3, 16, 16, 3)

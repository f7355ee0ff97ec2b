"""Each picture's own prompt reaches the network, and one prompt for all does too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.base import LatentLoss
from codi_jax.distill.loss import StepContext
from codi_jax.model import AutoencoderModel
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.autoencoders import init_autoencoder
from codi_jax.run import plan as plans
from codi_jax.run import prompts
from codi_jax.run.plan import plan
from codi_jax.run.prompts import EncodedTexts
from codi_jax.tasks.registry import task_of
from codi_jax.train.objectives import diffusion_objective
from codi_jax.typing import UserError
from configs import edit
from tests.models.tiny_unets import POOLED, TEXT
from tests.smallest import smallest


class LettersEncoder:
    """In place of CLIP: a prompt is the number of its letters."""

    def __init__(self, directory):
        assert directory == "models/sd"

    def __call__(self, prompts):
        return {"text": jnp.asarray([[[float(len(p))] * 8] * 3 for p in prompts])}

    def negative(self, prompt):
        assert prompt is None
        return self([""])


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.setattr(prompts, "PromptEncoder", LettersEncoder)
    config = edit.get_config("tiny")
    config.model.unet.cross_attention_dim = 8
    config.task_options.instruction_channels = 0

    def encoded(prompt):
        config.model.prompt = prompt
        monkeypatch.setattr(plans, "check_text", lambda model: None)
        model = dataclasses.replace(plan(config).model, directory="models/sd")
        return model, prompts.encode_prompt(prompt, model, config.data.size)

    return encoded


def test_one_prompt_for_all_is_encoded_once(texts):
    _, (text, null, encode) = texts("a cat")
    assert text["text"].shape == (1, 3, 8) and text["text"][0, 0, 0] == 5
    assert not null["text"].any() and encode is None


def test_own_prompts_are_encoded_batch_by_batch_and_read_by_the_network(texts, random_params):
    model, (text, _, encode) = texts("{instruction}")
    assert text == {}

    class Data:
        def get_state(self):
            return {"next_index": 7}

        def __next__(self):
            return {"prompt": np.array(["add fog", ""]), "text": np.array(["", ""])}

    data = EncodedTexts(Data(), encode)
    batch = next(data)
    np.testing.assert_array_equal(batch["text"][:, 0, 0], [7, 0])
    assert data.get_state() == {"next_index": 7}

    class Spy(LatentLoss):
        def __call__(self, networks, params, target, data, context):
            return {"loss": data["cond"]["text"][:, 0, 0]}

    task, image = task_of(model), np.zeros((16, 16, 3), np.uint8)
    example = task.from_user(image, prompt="add fog")
    arrays = {name: np.stack([value] * 2) for name, value in example.items()}
    arrays |= {"image": np.stack([image] * 2), "text": batch["text"]}
    vae = AutoencoderKL(model.vae)
    spy = Spy(schedule=model.schedule, prediction_type=model.prediction_type)
    objective = diffusion_objective(model.network, vae, spy, task.condition)
    params = {"vae": random_params(lambda key: init_autoencoder(model.vae, key))}
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    np.testing.assert_array_equal(
        objective(params, params, jax.tree.map(jnp.asarray, arrays), context)["loss"], [7, 0]
    )


# Shapes, and data that was encoded ahead of training.


def test_shapes_of_a_prompt_are_those_that_the_unet_reads():
    config = edit.get_config("tiny")
    assert prompts.prompt_shapes(plan(config).model) == {}
    assert prompts.prompt_shapes(AutoencoderModel(vae=plan(config).model.vae)) == {}
    model = plan(config).model
    for unet, expected in (
        (TEXT, {"text": (1, 77, 6)}),
        (POOLED, {"text": (1, 77, 6), "text_embeds": (1, 5), "time_ids": (1, 6)}),
    ):
        network = AdaptedUNet(unet=unet)
        shapes = prompts.prompt_shapes(dataclasses.replace(model, network=network))
        assert {name: shape.shape for name, shape in shapes.items()} == expected


def test_text_needs_an_encoder_beside_the_unet():
    model = plan(edit.get_config("tiny")).model
    prompts.check_text(model)
    reads = dataclasses.replace(model, network=AdaptedUNet(unet=TEXT))
    with pytest.raises(UserError, match="without config.model.pretrained there is no text"):
        prompts.check_text(reads)


class Batches:
    """Data of one batch, which may be asked for again."""

    def __init__(self, **batch):
        self.batch, self.position, self.read = batch, 0, 0

    def get_state(self):
        return self.position

    def set_state(self, position):
        self.position = position

    def __next__(self):
        self.position += 1
        return self.batch


def encode_texts(texts):
    return {"text": jnp.asarray([[[len(t) + 1.0] * 2] * 3 for t in texts])}


def encode_picture(images):
    return jnp.asarray(images, jnp.float32).mean(-1, keepdims=True)


def encoded_config(prompt="{text}", encoded=True):
    return smallest(data__encoded=encoded, model__prompt=prompt, data__source="SHARDS")


IMAGES = np.random.default_rng(0).integers(1, 256, (2, 4, 4, 3), np.uint8)
LATENTS = np.asarray(encode_picture(IMAGES)).astype(np.float16)
EMBEDS = np.asarray(encode_texts(["cat", "a dog"])["text"]).astype(np.float16)
CAPTIONS = np.array(["cat", "a dog"])


def columns(data, config=None, encode=encode_texts):
    return prompts.encoded_columns(config or encoded_config(), data, encode_picture, encode)


def test_columns_that_fit_are_used_and_the_position_is_kept():
    data = Batches(image=IMAGES, latents=LATENTS, prompt_embeds=EMBEDS, text=CAPTIONS)
    assert set(columns(data)) == {"latents", "prompt_embeds"}
    assert data.position == 0
    assert columns(Batches(image=IMAGES, latents=LATENTS), encode=None) == ("latents",)
    assert columns(Batches(image=IMAGES), encoded_config(encoded=False)) == ()


def test_columns_of_other_networks_are_refused():
    for latents in (LATENTS * np.float16(1.5), LATENTS[:, :2]):
        with pytest.raises(UserError, match=r"data's latents .* are not what this run's networks"):
            columns(Batches(image=IMAGES, latents=latents))
    wrong = Batches(image=IMAGES, prompt_embeds=EMBEDS[::-1], text=CAPTIONS)
    with pytest.raises(UserError, match="data's prompt_embeds"):
        columns(wrong)


def test_columns_that_are_absent_or_not_read_are_refused():
    with pytest.raises(UserError, match=r"encoded=True, but SHARDS has none of latents"):
        columns(Batches(image=IMAGES))
    captioned = Batches(image=IMAGES, prompt_embeds=EMBEDS, text=CAPTIONS)
    with pytest.raises(UserError, match="for a U-Net that reads text"):
        columns(captioned, encode=None)
    with pytest.raises(UserError, match="'a cat' now"):
        columns(captioned, encoded_config(prompt="a cat"))


def test_prompts_that_were_encoded_ahead_are_dropped_as_others_are():
    """An empty prompt is the encoder's, whatever the column says of the caption."""
    batch = {"prompt_embeds": EMBEDS, "prompt": np.array(["cat", ""]), "text": CAPTIONS}
    made = next(EncodedTexts(Batches(**batch), encode_texts))
    np.testing.assert_array_equal(made["text"][0], EMBEDS[0])
    np.testing.assert_array_equal(made["text"][1], encode_texts([""])["text"][0])

"""Each picture's own prompt reaches the network, and one prompt for all does too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.base import LatentLoss
from codi_jax.distill.loss import StepContext
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.run import plan as plans
from codi_jax.run import prompts
from codi_jax.run.plan import plan
from codi_jax.run.prompts import EncodedTexts
from codi_jax.tasks.registry import task_of
from codi_jax.train.objectives import diffusion_objective
from configs import edit


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


def test_own_prompts_are_encoded_batch_by_batch_and_read_by_the_network(texts, tiny_model):
    model, (text, _, encode) = texts("{instruction}")
    assert text == {}

    class Data:
        position = 7

        def __next__(self):
            return {"prompt": np.array(["add fog", ""]), "text": np.array(["", ""])}

    data = EncodedTexts(Data(), encode)
    batch = next(data)
    np.testing.assert_array_equal(batch["text"][:, 0, 0], [7, 0])
    assert data.position == 7

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
    params = {"vae": tiny_model(edit.get_config("tiny")).params["vae"]}
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    np.testing.assert_array_equal(
        objective(params, params, jax.tree.map(jnp.asarray, arrays), context)["loss"], [7, 0]
    )

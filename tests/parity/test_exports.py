"""Every part of an export is loaded by the class of diffusers that the export names."""

import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")
pytest.importorskip("transformers", reason="parity extra")

from safetensors.numpy import load_file  # noqa: E402

from codi_jax.checkpoint.directory import read_directory, save_directory  # noqa: E402
from codi_jax.checkpoint.files import INDEX, load_json  # noqa: E402
from codi_jax.diffusion.schedules import DiscreteSchedule  # noqa: E402
from codi_jax.diffusion.unsupported_sampler import read_sampler  # noqa: E402
from codi_jax.sampling.card import Facts, write_card  # noqa: E402
from tests.checkpoint.test_directory import MODELS, model_with  # noqa: E402
from tests.models.tiny_unets import PLAIN, TEXT  # noqa: E402

DEIS = read_sampler({**DiscreteSchedule().to_config(), "_class_name": "DEISMultistepScheduler"})


# diffusers has no transformers without text, so these U-Nets have no transformers, or text.
MADE = {
    "none": model_with("none", PLAIN),
    "deis": model_with("none", PLAIN, sampler=DEIS),
    "controlnet": model_with("controlnet", TEXT),
    "t2i": model_with("t2i", TEXT),
    "autoencoder": MODELS["autoencoder"],
    "autoencoder dc": MODELS["autoencoder dc"],
}


def exported(name, directory):
    """Constant parameters: nothing is compiled."""
    model = MADE[name]
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    model = dataclasses.replace(model, params=params)
    save_directory(directory, model)
    write_card(directory, model, Facts(base="owner/name", license="mit"), "LOAD")


@pytest.mark.parametrize("name", MADE)
def test_every_part_is_loaded(name, tmp_path):
    exported(name, tmp_path)
    index = load_json(tmp_path / INDEX)
    parts = {key: value for key, value in index.items() if isinstance(value, list)}
    assert {"vae"} <= parts.keys()
    for part, (library, class_name) in parts.items():
        assert library == "diffusers"
        cls = getattr(diffusers, class_name)
        loaded = cls.from_pretrained(tmp_path, subfolder=part)
        if part == "scheduler":
            assert loaded.config.beta_end == 0.012
            continue
        stored = load_file(tmp_path / part / "diffusion_pytorch_model.safetensors")
        state = loaded.state_dict()
        assert state.keys() == stored.keys()
        assert all(tuple(state[n].shape) == stored[n].shape for n in stored)
    if name == "deis":
        assert index["scheduler"] == ["diffusers", "DEISMultistepScheduler"]
        assert read_directory(tmp_path).sampler.diffusers_class == "DEISMultistepScheduler"


def test_the_card_is_one_that_the_hub_can_read(tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="sd extra")
    exported("controlnet", tmp_path)
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit" and card.data.base_model == "owner/name"
    assert card.data.pipeline_tag == "image-to-image" and "codi_jax" in card.data.tags

"""Latents and embeddings ahead of training: `prepare` makes them, a run takes them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from codi_jax.checkpoint.directory import load_directory, save_directory
from codi_jax.data import images, sources
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_report import contact_columns
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.distill.base import LatentLoss
from codi_jax.distill.loss import StepContext
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import to_signed
from codi_jax.run.config import build_task
from codi_jax.run.data import open_data
from codi_jax.run.prompts import EncodedTexts, encoded_columns
from codi_jax.run.train import train
from codi_jax.sampling.encoding import Encoder
from codi_jax.tasks.registry import task_of
from codi_jax.train.objectives import diffusion_objective
from codi_jax.typing import UserError
from configs import autoencoder, sr
from tests.smallest import smallest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> str:
    """Random networks."""
    path = tmp_path_factory.mktemp("networks")
    save_directory(path, tiny_model(smallest()))
    return str(path)


@pytest.fixture(scope="module")
def shards(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("encoded")
    for i in range(3):
        coarse = np.random.default_rng(i).integers(0, 256, (4, 8, 3), np.uint8)
        picture = images.resize(coarse, (32, 64), "bicubic")
        images.save_image(root / "photos" / f"{i}.png", picture)
    source = sources.FolderSource(root / "photos")
    config = PrepareConfig(crop=32, latents=checkpoint, near_duplicates=-1, shard_images=2)
    for name, workers in (("out", 0), ("again", 1)):
        encode = Encoder(latents=checkpoint)
        prepare(source, root / name, config, label="photos", workers=workers, encode=encode)
    for shard in (root / "out").glob("*.array_record"):
        assert shard.read_bytes() == (root / "again" / shard.name).read_bytes()
    return f"{root / 'out'}/*.array_record"


def test_latents_are_the_autoencoders(checkpoint: str, shards: str) -> None:
    source = sources.make_source(shards, "train")
    assert len(source) == 6
    model = load_directory(checkpoint)
    element = source[4]
    made = AutoencoderKL(model.vae).apply(
        {"params": model.params["vae"]},
        to_signed(jnp.asarray(element["image"][None])),
        method="encode",
    )
    assert element["latents"].dtype == np.float16
    assert "latents" not in contact_columns(Path(shards).parent, rows=2)
    np.testing.assert_allclose(element["latents"], made[0], atol=5e-3)


def test_a_code_without_a_posterior(tmp_path: Path, tiny_model: Any) -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    save_directory(tmp_path, tiny_model(config))
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (made,) = Encoder(latents=str(tmp_path))([{"image": image, "text": ""}])
    loaded = load_directory(tmp_path)
    assert loaded.vae.CLASS == "AutoencoderDC"
    variables = {"params": loaded.params["vae"]}
    vae, x = make_autoencoder(loaded.vae), to_signed(jnp.asarray(image[None]))
    wanted = vae.apply(variables, x, method="encode")[0]
    assert made["latents"].shape == (8, 8, 4)
    np.testing.assert_allclose(made["latents"], wanted, rtol=2e-3, atol=1e-3)


def config_of(checkpoint: str, shards: str) -> ConfigDict:
    config = sr.get_config("tiny")
    config.steps = config.eval.every = config.checkpoint.every = 1
    config.eval.steps, config.tensorboard = (1,), False
    config.model.pretrained = checkpoint
    config.data.source, config.data.encoded = shards, True
    return config


def data_of(config: ConfigDict) -> Any:
    return open_data(config, build_task(config))[0]


@pytest.mark.slow
def test_a_run_trains_on_them(checkpoint: str, shards: str, tmp_path: Path) -> None:
    config = config_of(checkpoint, shards)
    with jax.numpy_dtype_promotion("standard"):
        assert train(config, tmp_path / "w").scores["codi"]


def test_the_loss_sees_them_instead_of_the_pictures(checkpoint: str, shards: str) -> None:
    class Spy(LatentLoss):
        def __call__(self, networks, params, target, data, context):
            return data["latents"]

    model = load_directory(checkpoint)
    batch = next(data_of(config_of(checkpoint, shards)))
    vae = AutoencoderKL(model.vae)
    spy = Spy(schedule=model.schedule, prediction_type=model.prediction_type)
    objective = diffusion_objective(model.network, vae, spy, task_of(model).condition)
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))

    def seen(latents: np.ndarray | None) -> np.ndarray:
        arrays = {name: jnp.asarray(batch[name]) for name in ("image", "lr")}
        arrays |= {} if latents is None else {"latents": latents}
        return np.asarray(objective(model.params, model.params, arrays, context))

    np.testing.assert_allclose(seen(batch["latents"]), seen(None), atol=5e-3)
    np.testing.assert_array_equal(seen(0 * batch["latents"]), 0)


def test_what_does_not_fit_is_refused(checkpoint: str, shards: str) -> None:
    config = config_of(checkpoint, shards)
    config.data.size = 16
    data = data_of(config)
    with pytest.raises(UserError, match="--crop=16"):
        next(data)
    config.data.size, config.data.source = 32, "skimage"
    data = data_of(config)
    with pytest.raises(UserError, match="has none of latents"):
        encoded_columns(config, data, jnp.asarray, None)
    config.data.source = shards
    data = data_of(config)
    before = data.get_state()
    with pytest.raises(UserError, match="another checkpoint"):
        encoded_columns(config, data, lambda x: jnp.zeros((1, 8, 8, 4)), None)
    data.set_state(before)
    with pytest.raises(UserError, match="give the size by crop"):
        PrepareConfig(latents=checkpoint)
    with pytest.raises(UserError, match="no text_encoder"):
        Encoder(embeddings=checkpoint)
    with pytest.raises(UserError, match="no multiple"):
        Encoder(latents=checkpoint)([{"image": np.zeros((9, 9, 3), np.uint8), "text": ""}])


def test_stored_embeddings_take_the_place_of_the_prompts() -> None:
    class Data:
        def __next__(self):
            rows = np.full((2, 3, 8), 9, np.float16)
            return {
                "prompt": np.array(["a", ""]),
                "text": np.array(["a", "b"]),
                "prompt_embeds": rows,
            }

    calls = []

    def encode(prompts):
        calls.append(prompts)
        return {"text": jnp.zeros((1, 3, 8)), "time_ids": jnp.ones((1, 6))}

    batch = next(EncodedTexts(Data(), encode))
    np.testing.assert_array_equal(batch["text"][:, 0, 0], [9, 0])  # the second was dropped
    assert batch["time_ids"].shape == (2, 6) and calls == [[""]]

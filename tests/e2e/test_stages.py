"""One method after the other: fine-tune, then distil the model of that run; resume in a stage."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.store import Store
from codi_jax.model import Model
from codi_jax.run.plan import plan
from codi_jax.run.start import initial_params
from codi_jax.run.train import train
from codi_jax.sample import Sampler
from codi_jax.sampling.load import load_model
from codi_jax.typing import UserError
from tests.smallest import smallest


def config_of(method: str, start: Path | None = None) -> ConfigDict:
    config = smallest(method)
    config.steps = config.eval.every = config.checkpoint.every = 2
    config.log_every, config.eval.steps = 2, (1,)
    if start is not None:
        config.model.pretrained = str(start)
    return config


def check_random_initialisation(start: Model, config: ConfigDict) -> None:
    config.model.init = "random"
    drawn = initial_params(plan(config))
    assert trees.tree_hash(drawn["vae"]) == trees.tree_hash(start.params["vae"])
    kernels = [params["unet"]["conv_in"]["kernel"] for params in (drawn, start.params)]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(kernels[0], drawn["adapter"]["conv_in"]["kernel"])
    config.model.init = "zeros"
    with pytest.raises(UserError, match="pretrained, random"):
        plan(config)


@pytest.mark.slow
def test_finetune_then_consistency_then_progressive(tmp_path: Path) -> None:
    with jax.numpy_dtype_promotion("standard"):
        train(config_of("finetune"), tmp_path / "ldm")
        start = load_model(tmp_path / "ldm")
        cm = config_of("cm_frozen", tmp_path / "ldm" / "model")
        results = train(cm, tmp_path / "cm")
        end = load_model(tmp_path / "cm")
        # The U-Net is the fine-tuned one; only the adapter has moved.
        assert trees.tree_hash(start.params["unet"]) == trees.tree_hash(end.params["unet"])
        assert trees.tree_hash(start.params["adapter"]) != trees.tree_hash(end.params["adapter"])
        assert set(results.scores) == {"bicubic", "start", "cm_frozen"}
        # Whoever loads it, here or in diffusers, samples it as a consistency model.
        assert (end.sampler.solver, end.sampler.original_inference_steps) == ("consistency", 50)
        assert start.sampler.solver == "ddim"

        # Stage 2 with scales, on a network that cannot read them yet.
        gd = config_of("guided,progressive", tmp_path / "ldm" / "model")
        gd.loss.initial_steps, gd.loss.steps_per_stage = 2, 1
        gd.optim.warmup_steps = 0  # its first step would move nothing, and stage 1 has one step
        train(gd, tmp_path / "gd")
        lr = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        assert Sampler.load(tmp_path / "gd")(lr, steps=1, guidance_scale=3.0).shape == (32, 32, 3)
        with pytest.raises(UserError, match="guidance_scale"):
            Sampler.load(tmp_path / "cm")(lr, steps=1, guidance_scale=3.0)

        # An unfinished run's last checkpoint holds the teacher too: the student after stage 1.
        (tmp_path / "gd" / "model" / "model_index.json").unlink()
        model = load_model(tmp_path / "gd")
        check_random_initialisation(start, config_of("codi", tmp_path / "ldm" / "model"))
    with Store(tmp_path / "gd" / "checkpoints", read_only=True) as store:
        trained = {part: model.params[part] for part in ("unet", "adapter")}
        names = dict.fromkeys(("eval", "teacher"), trained)
        ema = store.restore(2, {"ema": names})["ema"]
    bias = ema["teacher"]["unet"]["conv_out"]["bias"]
    assert not np.array_equal(bias, start.params["unet"]["conv_out"]["bias"])

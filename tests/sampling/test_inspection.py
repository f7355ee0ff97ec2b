"""What `convert inspect` says of directories, single files, runs and what is broken."""

import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from codi_jax.checkpoint import single_file
from codi_jax.checkpoint.directory import load_directory
from codi_jax.checkpoint.hub import ASSETS
from codi_jax.checkpoint.single_file import Reading
from codi_jax.run.plan import plan
from codi_jax.sampling.inspection import inspect
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.trees import flatten
from codi_jax.typing import UserError
from tests.checkpoint import ldm_files
from tests.sampling.unfinished import leave_unfinished, origin_of
from tests.smallest import smallest

pytestmark = pytest.mark.usefixtures("unchecked")  # which makes it quicker


def test_inspect_says_what_it_is_and_what_fits():
    assert (out := inspect("demo"))
    assert "sr x4, adapter mix" in out and "F16" in out and "v_prediction" in out
    assert "codi_jax.sample --checkpoint demo" in out
    assert (out := inspect(str(ASSETS / "prior")))
    assert "unconditional prior" in out and "configs/sr.py" in out
    assert "AutoencoderDC" in inspect(str(ASSETS / "prior" / "vae"))


def test_counts_are_those_of_the_parameters():
    out = inspect("prior")
    for part, params in load_directory(ASSETS / "prior").params.items():
        count = sum(leaf.size for leaf in flatten(params).values())
        assert any(part in line and f"{count:,}" in line for line in out.splitlines())


def test_a_finished_run(tmp_path):
    shutil.copytree(ASSETS / "prior", tmp_path / "model")
    (tmp_path / "config.json").write_text(json.dumps({"task": "prior", "steps": 7, "data": {}}))
    out = inspect(str(tmp_path))
    assert "a finished run\n  task prior, steps 7\n" in out and "unconditional prior" in out
    assert f"--config.model.pretrained={tmp_path}" in out


def test_an_unfinished_run(tmp_path):
    leave_unfinished(smallest(seed=3), tmp_path / "stopped")
    out = inspect(str(tmp_path / "stopped"))
    assert "an unfinished run, last checkpoint at step 4" in out and "makes a model for sr" in out
    assert f"codi_jax.sample --checkpoint {tmp_path / 'stopped'}" in out
    origin_of(plan(smallest()), tmp_path / "begun")
    (tmp_path / "begun" / CHECKPOINTS).mkdir()
    out = inspect(str(tmp_path / "begun"))
    assert "no checkpoint yet" in out and "use: wait for its first checkpoint" in out


def test_single_files(tmp_path, monkeypatch):
    monkeypatch.setattr(single_file, "check_fits", lambda *_: None)  # it has tests of its own
    path = ldm_files.write_hollow(tmp_path / "sd.safetensors", ldm_files.tiny("sd2"))
    out = inspect(str(path))
    assert "Stable Diffusion 2.x, a single file" in out and "text_encoder    CLIPTextModel" in out
    assert "prediction type: unknown. " in out and "23 of 24 layers" in out
    assert f"import {path} DIRECTORY --prediction_type=..." in out
    out = inspect(str(path), Reading(prediction_type="v_prediction"))
    assert "prediction type: v_prediction, as you said" in out and "=..." not in out
    shapes = {**ldm_files.tiny("sdxl"), "v_pred": (0,), "ztsnr": (0,)}
    out = inspect(str(ldm_files.write_hollow(path, shapes)))
    assert "v_prediction, marked by v_pred" in out and "SNR: yes, marked by ztsnr" in out


def test_what_cannot_be_loaded_is_not_called_usable(tmp_path):
    shutil.copytree(ASSETS / "prior", tmp_path / "prior")
    file = tmp_path / "prior" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.chmod(0o644)
    save_file({**tensors, "conv_out.bias": tensors["conv_out.bias"].astype("int8")}, file)
    with pytest.raises(UserError, match="stores conv_out.bias as I8"):
        inspect(str(tmp_path / "prior"))
    del tensors["conv_out.bias"]
    save_file(tensors, file)
    with pytest.raises(UserError, match="1 missing: conv_out.bias"):
        inspect(str(tmp_path / "prior"))


@pytest.mark.parametrize("name", ["DDPMScheduler", "DEISMultistepScheduler"])
def test_a_scheduler_that_is_not_sampled_with(name, tmp_path):
    shutil.copytree(ASSETS / "prior", tmp_path / "prior")
    config = {"_class_name": name, "num_train_timesteps": 1000, "beta_start": 0.00085}
    config |= {"beta_end": 0.012, "beta_schedule": "scaled_linear"}
    file = tmp_path / "prior" / "scheduler" / "scheduler_config.json"
    file.chmod(0o644)
    file.write_text(json.dumps(config | {"prediction_type": "v_prediction"}))
    out = inspect(str(tmp_path / "prior"))
    assert "predicts v_prediction" in out and f"the sampler of {name}" in out
    assert "--solver=ddim" in out

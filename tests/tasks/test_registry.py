"""Tasks by name, and one from outside the package."""

import dataclasses
import inspect
import pickle

import numpy as np
import pytest

from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.run.config import build_task
from codi_jax.run.data import open_data
from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_class, task_from_config, task_names, task_of, trust_task
from codi_jax.typing import UserError
from configs import autoencoder, canny, depth, edit, inpaint, prior, sr

MODEL = Model(
    vae=AutoencoderConfig(),
    network=AdaptedUNet(unet=UNetConfig()),
    schedule=schedule_from_config(
        {
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
        }
    ),
)


class Outside(Task):
    """What a user's own module would hold."""

    name = "outside"


def test_every_file_is_a_task_of_its_name():
    assert {"sr", "prior", "autoencoder", "inpaint", "canny", "depth", "edit"} <= {*task_names()}
    for name in task_names():
        kind = task_class(name)
        assert kind.name == name and issubclass(kind, Task)
        fields = {field.name for field in dataclasses.fields(kind)}
        assert {*kind.saved} <= fields
        assert inspect.getdoc(kind) != inspect.getdoc(Task)


def test_a_files_word_for_a_task_runs_nothing(tmp_path, monkeypatch):
    """A checkpoint or a workdir names a task; only a person may name a module."""
    (tmp_path / "payload.py").write_text("open('ran', 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("payload:Evil", "payload", "os:system", 7, None):
        with pytest.raises(UserError):
            task_class(name)
        with pytest.raises(UserError):
            task_of(dataclasses.replace(MODEL, task=name or "payload:Evil"))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match="--task_module=payload:Evil"):
        task_class("payload:Evil")


def test_a_task_of_ones_own_is_module_and_class():
    trust_task(f"{__name__}:Outside")
    assert task_class(f"{__name__}:Outside") is Outside
    assert Outside().key == f"{__name__}:Outside"
    assert isinstance(task_of(dataclasses.replace(MODEL, task=Outside().key)), Outside)


@pytest.mark.parametrize("name", ["magic", "numpy:ndarray", "no_such_module:Task", "codi_jax:Nix"])
def test_unknown_tasks_are_named(name):
    trust_task(name)
    with pytest.raises(UserError, match=name.split(":")[-1]):
        task_class(name)


def test_an_unknown_option_is_named():
    with pytest.raises(UserError, match="colour"):
        task_from_config("canny", {"colour": 3}, {})


@pytest.mark.parametrize("module", [sr, prior, autoencoder, inpaint, canny, depth, edit])
def test_configs_give_their_task_and_it_pickles(module):
    """Data workers are other processes."""
    config = module.get_config("tiny")
    task = build_task(config)
    assert task.name == task.key == module.__name__.split(".")[-1]
    assert pickle.loads(pickle.dumps(task)) == task
    for transform in task.transforms(16, train=True):
        pickle.dumps(transform)


def test_options_travel_with_a_model():
    task = task_of(
        dataclasses.replace(MODEL, task="canny", task_options={"low": 10.0, "high": 20.0})
    )
    assert (task.low, task.high) == (10.0, 20.0)
    assert task_of(AutoencoderModel(vae=MODEL.vae)).name == "autoencoder"
    assert task_of(MODEL).name == "prior"
    assert task_of(dataclasses.replace(MODEL, task="sr", scale=2)).scale == 2


def test_a_base_task_takes_no_picture():
    with pytest.raises(UserError, match="takes no picture"):
        Outside().from_user(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="no guidance by the image"):
        Outside().without_picture({})


@pytest.mark.parametrize("module", [sr, prior, autoencoder, inpaint, canny, depth, edit])
def test_shapes_are_those_of_what_the_data_brings(module):
    """The plan of a run knows its batch before any data is read."""
    config = module.get_config("tiny")
    config.data.size = 32
    data, _ = open_data(config, build_task(config))
    task, batch = build_task(config), next(data)
    data.close()
    assert {
        name: (value.shape[1:], str(value.dtype))
        for name, value in batch.items()
        if name in task.arrays
    } == task.shapes(32)

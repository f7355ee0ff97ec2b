"""Unfinished runs of version 0.1.0, which left their config alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from codi_jax.checkpoint.directory import write_architecture
from codi_jax.run.plan import plan
from codi_jax.sampling.load import load_model
from codi_jax.sampling.old_workdirs import is_one, translate
from codi_jax.typing import UserError
from configs import autoencoder, inpaint, prior
from configs.methods import METHODS
from tests.sampling.unfinished import (
    architecture,
    assert_equal,
    leave_unfinished,
    old_config,
    origin_of,
)
from tests.smallest import UNET, VAE, smallest

#: Methods that start from the model of an earlier run.
SECOND = ("cm", "cm_frozen", "guided", "progressive")


def write(workdir: Path, content: Any) -> Path:
    workdir.mkdir(exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(content))
    return workdir


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture that an earlier run would leave."""
    path = tmp_path_factory.mktemp("first") / "model"
    write_architecture(path, plan(smallest("finetune")).model)
    return path


@pytest.mark.parametrize("method", METHODS)
def test_its_config_tells_what_runs_write_today(method: str, first: Path, tmp_path: Path) -> None:
    config = smallest(method, seed=9)
    if method in SECOND:
        config.model.pretrained = str(first)
    planned = plan(config)
    origin, model = translate(write(tmp_path / "old", old_config(config)))
    today = origin_of(planned, tmp_path / "new")
    assert sorted(origin.averages) == sorted(today.averages)
    assert dataclasses.replace(origin, averages=()) == dataclasses.replace(today, averages=())
    assert architecture(model) == architecture(planned.model)


@pytest.mark.parametrize("name", ["inpaint", "prior", "autoencoder"])
def test_other_tasks(name: str, tmp_path: Path) -> None:
    module = {"inpaint": inpaint, "prior": prior, "autoencoder": autoencoder}[name]
    config = module.get_config("tiny")
    config.mesh.data = 1
    if name == "prior":
        config.model.unet.update({**UNET, "in_channels": 4, "out_channels": 4})
        config.model.vae.update(VAE)
    _, model = translate(write(tmp_path, old_config(config)))
    found, expected = architecture(model), architecture(plan(config).model)
    if name == "inpaint":  # from JSON: a list of the names
        assert [*model.task_options.items()] == [*plan(config).model.task_options.items()]
    assert found == expected


@pytest.mark.slow
def test_such_a_run_is_loaded(tmp_path: Path) -> None:
    params = leave_unfinished(smallest("pe_codi", seed=6), tmp_path, old=True)
    assert not (tmp_path / "origin.json").exists()
    assert not (tmp_path / "architecture").exists()
    model = load_model(tmp_path)
    assert_equal(model.params, params)
    assert (model.task, model.scale, model.directory) == ("sr", 4, None)


def test_a_redrawn_start_is_told(tmp_path: Path, first: Path) -> None:
    config = smallest(model__init="random", model__pretrained=str(first))
    origin, _ = translate(write(tmp_path, old_config(config)))
    assert origin.redraw == ("unet", "adapter") and origin.pretrained == str(first)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": []}, []])
def test_another_file_of_that_name_is_refused(content: Any, tmp_path: Path) -> None:
    workdir = write(tmp_path, content)
    assert is_one(workdir)
    with pytest.raises(
        UserError,
        match=r"config\.json (is not the config of a run|holds a list, not a JSON object)",
    ):
        load_model(workdir)


def test_a_folder_without_a_config_is_none(tmp_path: Path) -> None:
    assert not is_one(tmp_path)

"""Which model a name stands for: a directory, a finished run, an unfinished one."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest

from codi_jax import trees
from codi_jax.checkpoint.directory import save_directory
from codi_jax.run.plan import plan
from codi_jax.sampling.load import CHECKPOINTS, MODEL, load_model
from codi_jax.typing import UserError
from configs import autoencoder
from tests.sampling.unfinished import architecture, assert_equal, leave_unfinished, origin_of
from tests.smallest import smallest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("trained") / "w" / MODEL
    save_directory(path, tiny_model(smallest("finetune", seed=7)))
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run of CoDi that was stopped, and the parameters of its model."""
    path = tmp_path_factory.mktemp("stopped")
    return path, leave_unfinished(smallest(seed=3), path)


def test_an_unfinished_run_needs_neither_config_nor_loss(
    stopped: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, params = shutil.copytree(stopped[0], tmp_path / "w"), stopped[1]
    (workdir / "config.json").unlink()
    for gone in ("run.methods.make_loss", "run.plan.plan", "tasks.registry.task_from_config"):
        monkeypatch.setattr(f"codi_jax.{gone}", None)
    model = load_model(workdir)
    assert_equal(model.params, params)
    assert (model.task, model.scale) == ("sr", 4)


def test_its_architecture_is_the_runs(stopped: tuple[Path, Any]) -> None:
    assert architecture(load_model(stopped[0])) == architecture(plan(smallest()).model)


def test_a_run_that_has_saved_nothing(tmp_path: Path) -> None:
    origin_of(plan(smallest()), tmp_path)
    (tmp_path / CHECKPOINTS).mkdir()
    with pytest.raises(UserError, match=r"has saved no checkpoint yet: wait for the first"):
        load_model(tmp_path)
    (tmp_path / CHECKPOINTS).rmdir()
    with pytest.raises(UserError, match="No checkpoints"):
        load_model(tmp_path)


def test_the_finished_model_comes_before_the_checkpoints(
    stopped: tuple[Path, Any], trained: Path, tmp_path: Path
) -> None:
    workdir = shutil.copytree(stopped[0], tmp_path / "w")
    shutil.copytree(trained, workdir / MODEL)
    assert_equal(load_model(workdir).params, load_model(trained).params)
    assert_equal(load_model(trained.parent).params, load_model(trained).params)
    # A folder that was begun only, without its index, is no model yet.
    (workdir / MODEL / "model_index.json").unlink()
    assert_equal(load_model(workdir).params, stopped[1])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "nowhere")


def test_frozen_parts_must_be_what_they_were(trained: Path, tmp_path: Path) -> None:
    prior = shutil.copytree(trained, tmp_path / "prior")
    workdir = tmp_path / "w"
    params = leave_unfinished(smallest("pe_codi", model__pretrained=str(prior)), workdir)
    model = load_model(workdir)
    assert_equal(model.params, params)
    assert model.directory == prior
    kept = (prior / "unet").rename(tmp_path / "kept")
    changed = load_model(trained)
    moved = {**changed.params, "unet": jax.tree.map(lambda x: x + 1.0, changed.params["unet"])}
    save_directory(prior, dataclasses.replace(changed, params=moved))
    with pytest.raises(UserError, match=r"prior'.*has changed since: put that checkpoint back"):
        load_model(workdir)
    shutil.rmtree(prior / "unet")
    kept.rename(prior / "unet")
    assert_equal(load_model(workdir).params, params)


def test_progressive_distillation_keeps_a_teacher_among_the_averages(
    trained: Path, tmp_path: Path
) -> None:
    config = smallest("progressive", model__pretrained=str(trained))
    params = leave_unfinished(config, tmp_path)
    assert_equal(load_model(tmp_path).params, params)
    # The teacher's average is another one.
    start = load_model(trained).params
    assert trees.tree_hash(start["unet"]) != trees.tree_hash(params["unet"])


def test_a_run_that_gave_its_unet_a_guidance_scale(trained: Path, tmp_path: Path) -> None:
    config = smallest("guided", model__pretrained=str(trained), model__time_cond_proj_dim=6)
    params = leave_unfinished(config, tmp_path)
    model = load_model(tmp_path)
    assert_equal(model.params, params)
    assert model.network.unet.time_cond_proj_dim == 6


def test_an_unfinished_autoencoder(tmp_path: Path) -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data, config.model.vae_init = 1, "random"
    params = leave_unfinished(config, tmp_path)
    model = load_model(tmp_path)
    assert_equal(model.params, params)
    assert architecture(model) == architecture(plan(config).model)

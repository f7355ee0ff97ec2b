"""The study's plan: stages in order, settings that reach them; a small one run and resumed."""

from pathlib import Path

import jax
import numpy as np
import pytest

from codi_jax.evals.distributions import swd
from codi_jax.evals.image_metrics import psnr
from codi_jax.evals.study_report import StudyResults
from codi_jax.run.study import Study
from codi_jax.typing import UserError
from configs import study


def test_stages_come_after_what_they_start_from():
    plan = Study(study.get_config(), Path("w"))
    stages = list(plan.stages())
    assert len(stages) == len(set(stages))
    by_lpips = {"cm_lpips", "lpips"}  # left out without its networks
    assert set(plan.config.stages) - set(stages) == by_lpips
    for name in stages:
        start = plan.config.stages[name].start
        assert not start or stages.index(start) < stages.index(name)


def test_settings_of_the_run_reach_every_stage():
    config = study.get_config()
    config.run.steps, config.run.data.source = 600, "PHOTOS"
    plan = Study(config, Path("w"))
    for name in plan.stages():
        assert plan.stage_config(name).data.source == "PHOTOS"
    assert plan.stage_config("codi").steps == 600
    assert plan.stage_config("cm").steps == 300  # of two stages: half each
    assert plan.stage_config("gd2").loss.steps_per_stage == 100  # 16, 8 and 4 steps
    assert plan.stage_config("cm").model.pretrained == str(Path("w/ldm_half/model"))


def test_an_ablation_changes_one_thing():
    config = study.get_config()

    def flat(name: str) -> dict:
        found = config.stages[name].config.copy_and_resolve_references()
        return found.to_dict() | {f"loss.{k}": v for k, v in found.loss.items()} | {"loss": None}

    ours = flat("grid")
    for name, changed in {
        "ddim_v": {"loss.predictor"},
        "no_guidance": {"loss.data_weight"},
    }.items():
        other = flat(name)
        assert {key for key in ours if ours[key] != other[key]} == changed


def test_unknown_stage_is_refused():
    config = study.get_config("tiny")
    config.rows = ({"label": "x", "stage": "nope", "steps": (1,), "table": "methods"},)
    with pytest.raises(UserError, match="nope"):
        Study(config, Path("w"))


def test_a_cell_is_scored_once(monkeypatch, tmp_path):
    """Means, intervals, each picture's value, the distance of the sets; then from disk."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
    noisy = np.clip(truth + rng.normal(0, 9, truth.shape), 0, 255).astype(np.uint8)
    plan = Study(study.get_config("tiny"), tmp_path)
    plan.batch = {"image": truth, "lr": truth}
    monkeypatch.setattr(Study, "pictures", lambda *args: noisy)
    row = next(row for row in plan.rows if row["sampler"])
    scores = plan.score(row, 4)
    assert list(scores) == ["psnr", "ssim", "gmsd", "haarpsi", "swd"]
    expected = [psnr(a, b) for a, b in zip(noisy, truth, strict=True)]
    assert scores["psnr"].value == np.mean(expected)
    assert list(scores["psnr"].values) == expected
    low, high = scores["psnr"].interval
    assert low < scores["psnr"].value < high
    assert scores["swd"].value == swd(noisy, truth) > 0
    monkeypatch.setattr(Study, "pictures", None)
    assert plan.score(row, 4) == scores
    (file,) = (tmp_path / "rows").iterdir()
    file.write_text('{"psnr": {"mean": 20.0}}')
    with pytest.raises(UserError, match="version None of their format"):
        plan.score(row, 4)


@pytest.mark.slow
def test_the_tiny_study_runs_and_does_nothing_twice(tmp_path, monkeypatch):
    config = study.get_config("tiny")
    with jax.numpy_dtype_promotion("standard"):
        results = Study(config, tmp_path).run()
    assert results == StudyResults.load(tmp_path / "results.json")
    assert set(results.tables["methods"].scores) >= {"bicubic", "LDM-SR", "CM-II", "CoDi"}
    assert "predictor ddim_v" in results.tables["ablations"].scores
    assert results.cost["codi"]["gflops"] > results.cost["ldm"]["gflops"]
    monkeypatch.setattr("codi_jax.run.train.train", None)
    monkeypatch.setattr(Study, "pictures", None)
    assert Study(config, tmp_path).run() == results

"""The study's plan: stages in order, settings that reach them; a small one run and resumed."""

from pathlib import Path

import jax
import numpy as np
import pytest

from codi_jax.evals.distributions import swd, swd_left_out
from codi_jax.evals.image_metrics import psnr
from codi_jax.evals.study_report import StudyResults
from codi_jax.run.study import Study
from codi_jax.run.study_stages import Stages
from codi_jax.typing import UserError
from configs import study


def test_stages_come_after_what_they_start_from():
    plan = Study(study.get_config(), Path("w"))
    stages = plan.needed_stages()
    assert len(stages) == len(set(stages))
    by_lpips = {"cm_lpips", "lpips", "with_lpips"}  # left out without its networks
    assert set(plan.config.stages) - set(stages) == by_lpips
    for name in stages:
        start = plan.config.stages[name].start
        assert not start or stages.index(start) < stages.index(name)


def test_the_budget_is_one_of_passes_and_not_of_steps(monkeypatch, tmp_path):
    """What costs more has fewer steps; a method of two stages has half of the budget for each."""
    config = study.get_config()
    config.passes, config.run.data.source = 6_000, "PHOTOS"
    costs = {"codi": 40.0, "ldm": 30.0, "ldm_half": 30.0, "cm": 50.0, "gd2": 50.0}
    monkeypatch.setattr(Stages, "passes_of_a_step", lambda self, name, config: costs[name])
    stages = Study(config, tmp_path).stages
    found = {name: stages.config(name) for name in costs}
    steps = {name: config.steps for name, config in found.items()}
    assert steps == {"codi": 150, "ldm": 200, "ldm_half": 100, "cm": 60, "gd2": 60}
    assert {config.data.source for config in found.values()} == {"PHOTOS"}
    assert found["gd2"].loss.steps_per_stage == 20  # 16, 8 and 4 steps
    assert found["cm"].model.pretrained == str(tmp_path / "ldm_half" / "model")


def test_passes_are_counted_once_for_a_config(monkeypatch, tmp_path):
    counted = []
    monkeypatch.setattr("codi_jax.run.study_stages.plan", lambda config: config)
    monkeypatch.setattr(
        "codi_jax.run.study_stages.step_passes", lambda config: counted.append(1) or 5.0
    )
    config = study.get_config("tiny")
    assert Study(config, tmp_path).stages.config("ldm").steps == 24
    assert Study(config, tmp_path).stages.config("ldm").steps == 24 and len(counted) == 1
    config.run.batch_size = 16
    Study(config, tmp_path).stages.config("ldm")
    assert len(counted) == 2


def test_unknown_stages_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no stage 'nope': config.stages has .*codi"):
        Study(study.get_config("tiny"), tmp_path).train(["nope"])


def test_an_ablation_changes_one_thing():
    config = study.get_config()

    def flat(name: str) -> dict:
        found = config.stages[name].config.copy_and_resolve_references()
        return found.to_dict() | {f"loss.{k}": v for k, v in found.loss.items()} | {"loss": None}

    ours = flat("codi")
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
    plan.sets["main"].samples = [{"image": image, "lr": image} for image in truth]
    row = next(row for row in plan.rows if row["sampler"])
    assert plan.score("main", row, 4) is None  # not trained yet
    monkeypatch.setattr(Stages, "finished", lambda *args: True)
    monkeypatch.setattr(Study, "pictures", lambda *args: list(noisy))
    scores = plan.score("main", row, 4)
    assert list(scores) == ["psnr", "ssim", "gmsd", "haarpsi", "swd"]
    expected = [psnr(a, b) for a, b in zip(noisy, truth, strict=True)]
    assert scores["psnr"].value == np.mean(expected)
    assert list(scores["psnr"].values) == expected
    low, high = scores["psnr"].interval
    assert low < scores["psnr"].value < high
    assert scores["swd"].value == swd(noisy, truth) > 0
    assert scores["swd"].left_out == tuple(swd_left_out(noisy, truth))
    monkeypatch.setattr(Study, "pictures", None)
    assert plan.score("main", row, 4) == scores
    (file,) = (tmp_path / "rows" / "main").iterdir()
    file.write_text('{"psnr": {"mean": 20.0}}')
    with pytest.raises(UserError, match="version None of their format"):
        plan.score("main", row, 4)


@pytest.mark.slow
def test_the_tiny_study_runs_and_does_nothing_twice(tmp_path, monkeypatch):
    config = study.get_config("tiny")
    config.report = str(tmp_path / "report")
    with jax.numpy_dtype_promotion("standard"):
        partial = Study(config, tmp_path)
        partial.train(["ldm"])
        partial.results(make=True)
        said = partial.report("a lane").read_text()
        assert "without rows: `ldm_half`, `cm`, `codi`, `ddim_v`." in said
        results = Study(config, tmp_path).run()
    assert results == StudyResults.load(tmp_path / "results.json") and not results.missing
    assert set(results.tables["methods"].scores) >= {"bicubic", "LDM-SR", "CM-II", "CoDi"}
    assert set(results.tables["clean"].scores["CoDi"]) == {4}
    assert "predictor ddim_v" in results.tables["ablations"].scores
    assert results.cost["codi"]["gflops"] > results.cost["ldm"]["gflops"]
    spent = {name: cost["passes"] * cost["steps"] for name, cost in results.cost.items()}
    assert spent["ldm"] == pytest.approx(config.passes / config.run.batch_size, rel=0.2)
    monkeypatch.setattr("codi_jax.run.study_stages.train", None)
    monkeypatch.setattr(Study, "pictures", None)
    again = Study(config, tmp_path)
    assert again.run() == results and again.results(make=False) == results
    text = again.report("the command").read_text()
    assert "without rows" not in text and "CoDi at 4 steps beats bicubic" in text

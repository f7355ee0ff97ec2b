"""What a run's evaluator scores, shows and prints, for tasks with and without one right result."""

import numpy as np
import pytest
from PIL import Image

from codi_jax.evals import evaluation
from codi_jax.evals.evaluation import Beside, Evaluator
from codi_jax.evals.image_metrics import scores_per_image
from codi_jax.evals.networks import metrics_of_runs
from codi_jax.evals.results import table
from codi_jax.evals.weights import NETWORKS
from codi_jax.run.config import build_task
from codi_jax.run.plan import plan
from configs import canny, depth, prior
from tests.smallest import shrunk, smallest


@pytest.fixture(autouse=True)
def without_weights(tmp_path, monkeypatch):
    """LPIPS is reported where its weights are, which differs between machines."""
    names = metrics_of_runs(tmp_path)
    monkeypatch.setattr(evaluation, "metrics_of_runs", lambda: names)


def test_lpips_is_reported_where_its_weights_are(tmp_path):
    assert "lpips_alex" not in metrics_of_runs(tmp_path)
    (tmp_path / NETWORKS["alex"].converted).touch()
    assert {*metrics_of_runs(tmp_path)} >= {"psnr", "gmsd", "lpips_alex", "swd"}


def test_a_finished_model_has_a_column_and_a_row(tmp_path, monkeypatch):
    config = smallest()
    batch, model, task = batch_of(config), plan(config).model, build_task(config)
    made = {1: batch["image"], 2: np.roll(batch["image"], 3, axis=1)}
    monkeypatch.setattr(Evaluator, "_conditional", lambda self, sampler, params, n: made[n])
    alone = Evaluator(model, task, batch, (1, 2), tmp_path)
    with_it = Evaluator(
        model, task, batch, (1, 2), tmp_path, beside=Beside(name="other", model=model)
    )
    narrow, wide = alone(1, {}), with_it(1, {})
    assert wide.scalars == narrow.scalars  # the curves are those of the model in training
    assert wide.grid.shape[1] > narrow.grid.shape[1]
    results = with_it.results("codi", wide, wide)
    assert list(results.scores) == ["bicubic", "start", "codi", "other"]
    assert results.scores["other"] == {2: results.scores["codi"][2]}


def batch_of(config):
    rng, task = np.random.default_rng(0), build_task(config)
    image = rng.integers(0, 256, (32, 32, 3), np.uint8)
    element = {"image": image, "depth": rng.integers(1, 999, (32, 32)).astype(np.uint16)}
    element |= {"lr": image[:8, :8], "name": "noise"}
    example = task.prepare(element, rng)
    return {name: np.stack([example[name]] * 2) for name in task.arrays}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (smallest(), {"psnr", "ssim", "gmsd", "haarpsi", "swd"}),
        (shrunk(canny.get_config("tiny")), {"edge_f1"}),
        (shrunk(depth.get_config("tiny")), {"edge_recall", "depth_error"}),
        pytest.param(prior.get_config("tiny"), set(), marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "task", None),
)
def test_scores_are_the_tasks(config, names, tmp_path, monkeypatch):
    batch, config.mesh.data = batch_of(config), 1  # a program for one device compiles faster
    monkeypatch.setattr(Evaluator, "draw", lambda self, params: {4: self.batch["image"]})
    evaluator = Evaluator(plan(config).model, build_task(config), batch, (4,), tmp_path)
    evaluated = evaluator(1, {})
    with Image.open(tmp_path / "step_1.png") as picture:
        np.testing.assert_array_equal(evaluated.pictures["samples"][0], np.asarray(picture))
    assert set(evaluated.scores.get(4, {})) == names
    assert set(evaluated.scalars) == {f"eval_4/{name}" for name in names}
    results = evaluator.results("cm", evaluated, evaluated)
    assert results.task == config.task and results.images == 2
    assert set(results.metrics) == names
    baselines = {*evaluator.task.baselines(batch)}
    assert set(results.scores) == ({*baselines, "start", "cm"} if names else set())
    text = table(results)
    assert all(metric.title in text for metric in results.metrics.values())


def test_values_are_those_of_the_metrics(tmp_path, monkeypatch):
    config = smallest()
    batch = batch_of(config)
    made = np.roll(batch["image"], 3, axis=1)
    monkeypatch.setattr(Evaluator, "draw", lambda self, params: {2: made})
    evaluator = Evaluator(plan(config).model, build_task(config), batch, (2,), tmp_path)
    scalars = evaluator(0, {}).scalars
    for name, values in scores_per_image(made, batch["image"]).items():
        assert scalars[f"eval_2/{name}"] == float(np.mean(values))

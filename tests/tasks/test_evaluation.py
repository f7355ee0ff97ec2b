"""What a run's evaluator scores, shows and prints, for tasks with and without one right result."""

import numpy as np
import pytest

from codi_jax.evals.evaluation import Evaluator, table, task_results
from codi_jax.run.config import build_task
from configs import canny, depth, prior, sr


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
        (sr.get_config("tiny"), {"psnr", "ssim", "gmsd", "haarpsi"}),
        (canny.get_config("tiny"), {"edge_f1"}),
        (depth.get_config("tiny"), {"edge_recall", "depth_error"}),
        (prior.get_config("tiny"), set()),
    ],
    ids=lambda value: getattr(value, "task", None),
)
def test_scores_are_the_tasks(config, names, tiny_model, tmp_path, monkeypatch):
    batch = batch_of(config)
    monkeypatch.setattr(Evaluator, "_columns", lambda self, params: {"4": self.batch["image"]})
    evaluator = Evaluator(tiny_model(config), build_task(config), batch, (4,), tmp_path)
    scores = evaluator(1, {})
    assert (tmp_path / "step_1.png").is_file()
    assert set(scores.get("4", {})) == names
    if names:
        text = table(task_results(config.task, "codi", evaluator.baselines(), {}, scores, 2))
        assert all(name in text for name in names)

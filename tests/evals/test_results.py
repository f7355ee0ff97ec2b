"""The format of results, and the table."""

import json
import math

import numpy as np
import pytest

from codi_jax.evals.metrics import METRICS, Metric
from codi_jax.evals.results import Results, Score, table
from codi_jax.typing import UserError


@pytest.fixture
def results():
    own = Metric(higher_is_better=False, convention="mine", heading="mine", per_image=False)
    row = {"psnr": Score.of(np.array([20.0, 22.0]), keep=True), "swd": Score.of(31.25)}
    equal = {"psnr": Score.of(np.array([math.inf, 30.0]), keep=True), "swd": Score.of(0.0)}
    return Results(
        images=2,
        metrics={"psnr": METRICS["psnr"], "swd": METRICS["swd"], "mine": own},
        scores={"bicubic": {None: equal}, "cm": {4: row, 50: {**row, "mine": Score(value=0.5)}}},
        task="sr",
        setting={"seed": 1},
        warnings=("few images",),
    )


def test_a_score_is_a_mean_with_its_interval():
    values = np.array([1.0, 2.0, 6.0], np.float32)
    score = Score.of(values)
    assert score.value == 3.0 and score.values is None
    assert 1.0 <= score.interval[0] < 3.0 < score.interval[1] <= 6.0
    assert Score.of(values, keep=True).values == (1.0, 2.0, 6.0)


def test_a_file_gives_back_what_was_written(results, tmp_path):
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_the_file_is_as_documented(results):
    content = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert list(content) == [
        "version", "task", "images", "setting", "scores", "metrics", "warnings",
    ]  # fmt: skip
    assert content["scores"]["bicubic"]["-"]["psnr"] == {
        "value": "inf",
        "interval": [30.0, "inf"],
        "values": ["inf", 30.0],
    }
    assert content["scores"]["cm"]["50"]["mine"] == {"value": 0.5}
    assert content["scores"]["cm"]["4"]["psnr"] == {
        "value": 21.0, "interval": [20.0, 22.0], "values": [20.0, 22.0],
    }  # fmt: skip
    assert content["metrics"]["psnr"]["higher_is_better"] is True


@pytest.mark.parametrize("content", [{"metrics": {}}, {"version": 0}])
def test_another_format_is_refused(content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"version {content.get('version')} of their format"):
        Results.load(tmp_path / "results.json")


def test_what_samples_is_a_curve(results):
    assert results.unsampled == {"bicubic": {"psnr": math.inf, "swd": 0.0}}
    assert set(results.curves) == {"cm"} and set(results.curves["cm"]) == {4, 50}
    assert results.curves["cm"][4] == {"psnr": 21.0, "swd": 31.25}


def test_the_table_has_a_line_a_method_and_number_of_steps(results):
    assert table(results, ("psnr",)).splitlines() == [
        "| method  | steps | PSNR ↑               | SWD ↓ | mine ↓ |",
        "| ------- | ----- | -------------------- | ----- | ------ |",
        "| bicubic | -     | inf [30.00, inf]     | 0.0   | -      |",
        "| cm      | 4     | 21.00 [20.00, 22.00] | 31.2  | -      |",
        "| cm      | 50    | 21.00 [20.00, 22.00] | 31.2  | 0.5000 |",
    ]
    assert "[" not in table(results)

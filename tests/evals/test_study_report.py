import json

import numpy as np
import pytest

from codi_jax.evals.scoring import METRICS
from codi_jax.evals.study_report import HEADINGS, cost_table, order, table, write_report


def scores(lpips: float, swd: float) -> dict:
    values = dict.fromkeys(HEADINGS, 1.0) | {"lpips_alex": lpips, "swd": swd}
    return {
        name: {"mean": value, "low": value - 0.1, "high": value + 0.1}
        for name, value in values.items()
    }


def row(label: str, steps: int, lpips: float, swd: float, table: str = "methods") -> dict:
    return {"label": label, "steps": steps, "table": table, "scores": scores(lpips, swd)}


ROWS = [
    row("LDM-SR", 4, 0.30, 50.0),
    row("LDM-SR", 50, 0.19, 20.0),
    row("CM-II", 4, 0.15, 30.0),
    row("CoDi", 4, 0.20, 40.0),
    row("CoDi", 4, 0.20, 40.0, "ablations"),
]


def test_order_says_where_it_holds_and_where_not():
    lines = order(ROWS).splitlines()
    ldm, cm = (next(x for x in lines if f"beats {name} at 4" in x) for name in ("LDM-SR", "CM-II"))
    assert ldm.count("yes") == 2 and "**no**" not in ldm
    assert cm.count("**no**") == 2 and "yes" not in cm
    near = next(x for x in lines if "within 10%" in x)
    assert "yes" in near and "+5.3%" in near


def test_table_has_a_line_per_row_and_intervals():
    text = table(ROWS, scores(0.5, 60.0))
    assert len(text.splitlines()) == 2 + 1 + len(ROWS)
    assert "0.2000 [0.1000, 0.3000]" in text and "| bicubic | - |" in text


def test_costs_are_relative_to_fine_tuning():
    costs = {
        "ldm": {"gflops": 60.0, "memory_mb": 100.0, "seconds": 0.2},
        "codi": {"gflops": 80.0, "memory_mb": 110.0, "seconds": 0.3},
    }
    line = cost_table(costs).splitlines()[-1]
    assert line == "| codi | 80.0 | 1.33 | 110 | 0.300 | 1.50 |"


def test_report_is_written_with_its_pictures(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": i, "loss": 1 / i}) + "\n" for i in (1, 2)))
    picture = [np.zeros((16, 16, 3), np.uint8)]
    cost = {"gflops": 60.0, "memory_mb": 100.0, "seconds": 0.2}
    sampling = {"label": "CoDi", "steps": 4, "gflops": 1.0, "passes": 4.4, "seconds": 0.1}
    results = {
        "rows": ROWS,
        "bicubic": scores(0.5, 60.0),
        "cost": {"ldm": cost},
        "sampling": [{**sampling, "passes_recomputed": 5.6}],
        "images": 1,
        "size": 16,
        "steps": 2,
        "batch_size": 1,
        "device": "1 x cpu",
    }
    write_report(results, {"ldm": log}, {"CoDi": picture}, tmp_path, "the command")
    text = (tmp_path / "results.md").read_text()
    assert "the command" in text and "| CoDi | 4 | 1.0 | 4.40 | 5.60 | 0.100 |" in text
    for name in ("methods", "ablations", "metrics", "losses", "pictures"):
        assert f"images/study_{name}.png" in text
        assert (tmp_path / "images" / f"study_{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("metric", HEADINGS)
def test_directions_are_in_the_headings(metric):
    up = METRICS[metric].higher_is_better
    assert f"{HEADINGS[metric][0]} {'↑' if up else '↓'}" in table(ROWS)


def test_differences_are_paired_where_each_picture_is_known():
    rows = [{**r, "scores": {k: dict(v) for k, v in r["scores"].items()}} for r in ROWS]
    for r in rows:  # pictures differ by much, methods by little and always
        base = r["scores"]["lpips_alex"]["mean"]
        r["scores"]["lpips_alex"]["values"] = [base - 0.1, base + 0.1]
    line = next(x for x in order(rows).splitlines() if "beats LDM-SR at 4" in x)
    assert "difference [-0.1000, -0.1000]" in line


def test_lpips_is_the_judge_where_it_was_measured():
    assert "perceptual (LPIPS)" in order(ROWS)
    without = [{**r, "scores": dict(r["scores"])} for r in ROWS]
    for r in without:
        del r["scores"]["lpips_alex"]
    assert "perceptual (HaarPSI)" in order(without) and "LPIPS" not in table(without)

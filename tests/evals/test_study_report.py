import json

import numpy as np
import pytest

from codi_jax.evals.metrics import METRICS
from codi_jax.evals.results import Results, Score
from codi_jax.evals.study_report import StudyResults, adapters, order, write_report
from codi_jax.typing import UserError

NAMES = ("psnr", "haarpsi", "lpips_alex", "swd")


def row(lpips: float, swd: float, spread: float | None = None) -> dict[str, Score]:
    """Scores of one cell; with a spread, of two pictures that far above and below the mean."""
    values = None if spread is None else (lpips - spread, lpips + spread)
    judged = Score(value=lpips, interval=(lpips - 0.1, lpips + 0.1), values=values)
    alike = {name: Score(value=1.0) for name in NAMES}
    return {**alike, "lpips_alex": judged, "swd": Score(value=swd)}


def results_of(scores, names=NAMES) -> Results:
    chosen = {
        method: {n: {name: cell[name] for name in names} for n, cell in by_steps.items()}
        for method, by_steps in scores.items()
    }
    return Results(images=1, metrics={name: METRICS[name] for name in names}, scores=chosen)


SCORES = {
    "bicubic": {None: row(0.5, 60.0)},
    "LDM-SR": {4: row(0.30, 50.0), 50: row(0.19, 20.0)},
    "CM-II": {4: row(0.15, 30.0)},
    "CoDi": {4: row(0.20, 40.0)},
}


def test_order_says_where_it_holds_and_where_not():
    lines = order(results_of(SCORES)).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert "| CoDi at 4 steps beats bicubic | yes" in lines[2]
    ldm, cm = (next(x for x in lines if f"beats {name} at 4" in x) for name in ("LDM-SR", "CM-II"))
    assert ldm.count("yes") == 2 and "**no**" not in ldm
    assert cm.count("**no**") == 2 and "yes" not in cm
    near = next(x for x in lines if "within 10%" in x)
    assert "yes" in near and "+5.3%" in near


def test_report_is_written_with_its_pictures(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        "".join(json.dumps({"step": i, "passes": 30 * i, "loss": 1 / i}) + "\n" for i in (1, 2))
    )
    picture = [np.zeros((16, 16, 3), np.uint8)]
    sampling = {"label": "CoDi", "steps": 4, "gflops": 1.0, "passes": 4.4, "seconds": 0.1}
    ablations = {"one t": {4: row(0.25, 45.0)}}
    results = StudyResults(
        tables={
            "methods": results_of(SCORES),
            "ablations": results_of(ablations),
            "whole": results_of(SCORES),
        },
        cost={
            "ldm": {"gflops": 60.0, "memory_mb": 100.0, "seconds": 0.2, "passes": 3.9, "steps": 320}
        },
        sampling=[{**sampling, "passes_recomputed": 5.6}],
        sets={"main": "1 crop of 16 px", "whole": "1 whole picture"},
        missing=["codi"],
        passes=1e4,
        crop=16,
        device="1 x cpu",
        peers=[{"name": "bicubic", "seconds": 0.01}],
    )
    results.save(tmp_path / "results.json")
    results = StudyResults.load(tmp_path / "results.json")
    write_report(results, {"ldm": log}, {"CoDi": picture}, tmp_path, "the command")
    text = (tmp_path / "results.md").read_text()
    assert "the command" in text and "| CoDi | 4 | 1.0 | 4.40 | 5.60 | 0.100 |" in text
    assert "0.2000 [0.1000, 0.3000]" in text and "0.2500 [0.1500, 0.3500]" in text
    assert text.index("| bicubic | -") < text.index("| LDM-SR ")
    assert "10,000 U-Net passes" in text and "without rows: `codi`" in text
    assert "| ldm | 320 | 3.90 | 60.0 | 1.00 | 100 | 0.200 | 1.00 |" in text
    assert text.index("### 1 whole picture") < text.index("## Ablations")
    assert "CoDi in 4 steps has not been scored" in text  # among the ablations
    assert "## Beside other programs" in text and "| bicubic | - | 0.5000 | 60.0 |" in text
    for name in ("methods", "ablations", "metrics", "losses", "pictures"):
        assert f"images/study_{name}.png" in text
        assert (tmp_path / "images" / f"study_{name}.png").stat().st_size > 1000


def test_results_of_an_older_study_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match="version None of their format"):
        StudyResults.load(tmp_path / "results.json")


def test_differences_are_paired_where_each_picture_is_known():
    # Pictures differ by much, methods by little and always.
    scores = {**SCORES, "LDM-SR": {4: row(0.30, 50.0, 0.1)}, "CoDi": {4: row(0.20, 40.0, 0.1)}}
    line = next(x for x in order(results_of(scores)).splitlines() if "beats LDM-SR at 4" in x)
    assert "difference [-0.1000, -0.1000]" in line
    assert "difference" not in order(results_of(SCORES))


def test_differences_of_sets_have_a_jackknife_interval():
    """The measure is common to both, and their difference is nearly the same in every group."""
    common = np.array([3.0, -2.0, 1.0, -2.0])
    ours, theirs = (
        {**row(0.2, swd), "swd": Score(value=swd, left_out=tuple(swd + common + own))}
        for swd, own in ((40.0, 0.1), (50.0, np.array([0.1, 0.3, 0.1, 0.3])))
    )
    scores = {"LDM-SR": {4: theirs}, "CoDi": {4: ours}}
    line = next(x for x in order(results_of(scores)).splitlines() if "beats LDM-SR" in x)
    reach = 3.182446 * np.sqrt(3 / 4 * 4 * 0.1**2)  # Student's t with 3 degrees of freedom
    assert f"[{-10 - reach:+.1f}, {-10 + reach:+.1f}]" in line and "| yes: 40.0" in line
    noisy = {**ours, "swd": Score(value=40.0, left_out=(70.0, 10.0, 60.0, 20.0))}
    line = order(results_of({**scores, "CoDi": {4: noisy}})).splitlines()[-1]
    assert "| level: 40.0 against 50.0; difference [-" in line


def test_adapters_are_held_against_the_fine_tuned_model():
    scores = {**SCORES, "PE-CoDi mix": {4: row(0.35, 45.0)}, "LDM-SR, frozen": {4: row(0.5, 90.0)}}
    whole, frozen = adapters(results_of(scores)).splitlines()
    assert "| PE-CoDi mix at 4 steps beats LDM-SR at 4 | **no**" in whole and "yes: 45.0" in whole
    assert "beats LDM-SR, frozen at 4 | yes: 0.35" in frozen
    assert adapters(results_of(SCORES)) == ""


def test_lpips_is_the_judge_where_it_was_measured():
    assert "perceptual (LPIPS)" in order(results_of(SCORES))
    without = results_of(SCORES, ("psnr", "haarpsi", "swd"))
    assert "perceptual (HaarPSI)" in order(without)

"""What the study's tables say of costs."""

from codi_jax.evals.metrics import METRICS
from codi_jax.evals.results import Results, Score
from codi_jax.evals.study_costs import cost_table, peers_table


def test_costs_are_relative_to_fine_tuning():
    costs = {
        "ldm": {"gflops": 60.0, "memory_mb": 100.0, "seconds": 0.2, "passes": 3.9, "steps": 400},
        "codi": {"gflops": 80.0, "memory_mb": 110.0, "seconds": 0.3, "passes": 5.2, "steps": 300},
    }
    line = cost_table(costs).splitlines()[-1]
    assert line == "| codi | 300 | 5.20 | 80.0 | 1.33 | 110 | 0.300 | 1.50 |"
    alone = cost_table({"codi": costs["codi"]}).splitlines()[-1]  # fine-tuning is not there yet
    assert alone == "| codi | 300 | 5.20 | 80.0 | - | 110 | 0.300 | - |"


def test_other_programs_stand_beside_what_they_cost():
    def scored(lpips: float) -> dict[str, Score]:
        return {"lpips_alex": Score(value=lpips), "swd": Score(value=100 * lpips)}

    scores = {
        "bicubic": {None: scored(0.5)},
        "OSEDiff": {None: scored(0.2)},
        "HYPIR": {None: scored(0.3)},
        "LDM-SR": {4: scored(0.4), 50: scored(0.19)},
        "CoDi": {4: scored(0.21)},
    }
    names = ("lpips_alex", "swd")
    methods = Results(images=1, metrics={name: METRICS[name] for name in names}, scores=scores)
    peers = [{"name": "OSEDiff", "seconds": 9.5, "parameters": 1_775_000_000}, {"name": "HYPIR"}]
    sampling = [
        {"label": "CoDi", "steps": 4, "seconds": 0.25, "parameters": 7_700_000},
        {"label": "LDM-SR", "steps": 50, "seconds": 2.0},  # of a version without the number
    ]
    lines = peers_table(methods, names, peers, sampling).splitlines()
    assert lines[0] == ("| method | steps | LPIPS ↓ | SWD ↓ | parameters, M | seconds a picture |")
    assert lines[2:] == [
        "| bicubic | - | 0.5000 | 50.0 | - | - |",
        "| OSEDiff | - | 0.2000 | 20.0 | 1775.0 | 9.500 |",
        "| HYPIR | - | 0.3000 | 30.0 | - | - |",
        "| CoDi | 4 | 0.2100 | 21.0 | 7.7 | 0.250 |",
        "| LDM-SR | 50 | 0.1900 | 19.0 | - | 2.000 |",
    ]

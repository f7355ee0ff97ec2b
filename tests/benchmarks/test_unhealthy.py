"""Runs that are broken on purpose: one thing differs, and the log says it."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import unhealthy
from codi_jax.checkpoint.files import load_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.results import Results, Score
from codi_jax.run.plan import plan
from codi_jax.trees import flatten
from configs import sr
from tests.smallest import smallest


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class _State:
    trainable: dict[str, jax.Array]


class _StepFn:
    def __call__(self, state: _State, *args: object) -> tuple[_State, dict[str, float]]:
        w = state.trainable
        return _State({"small": w["small"] + 1e-3, "large": w["large"] + 0.25}), {"loss": 0.0}


@dataclasses.dataclass
class _Planned:
    step_fn: _StepFn


@pytest.mark.parametrize("name", [name for name in unhealthy.BROKEN if name != "bfloat16"])
def test_one_thing_is_wrong(name: str, tmp_path: Path) -> None:
    healthy, broken = sr.get_config(), sr.get_config()
    unhealthy.BROKEN[name](broken, tmp_path / name)
    a, b = (flatten(config.to_dict()) for config in (healthy, broken))
    changed = [key for key in a if a[key] != b[key]]
    assert len(changed) == (name != "healthy")


def test_a_prior_is_changed_as_a_copy(tmp_path: Path) -> None:
    config, prior = sr.get_config(), checkpoint_path("prior")
    unhealthy.BROKEN["codec"](config, tmp_path / "codec")
    copy = Path(config.model.pretrained)
    own, theirs = (load_json(at / "vae" / "config.json") for at in (copy, prior))
    assert own == {**theirs, "scaling_factor": 4 * theirs["scaling_factor"]}
    assert (copy / "unet" / "config.json").read_bytes() == (
        prior / "unet" / "config.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["prediction_type", "codec"])
def test_a_changed_prior_is_not_refused(name: str, tmp_path: Path) -> None:
    config = sr.get_config()
    unhealthy.BROKEN[name](config, tmp_path / name)
    plan(config)


def test_parameters_are_rounded_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that would add a thousandth to 1 leaves it as it is; larger ones arrive."""
    monkeypatch.setattr(unhealthy, "plan", lambda config: _Planned(_StepFn()))
    planned = unhealthy._plan_in_bfloat16(smallest())
    state = _State({"small": jnp.float32(1.0), "large": jnp.float32(1.0)})
    state, metrics = jax.jit(planned.step_fn)(state, {}, {}, jax.random.key(0))
    assert state.trainable == {"small": 1.0, "large": 1.25} and metrics == {"loss": 0.0}


def test_the_table_has_means_of_the_log_and_the_scores_at_the_end(tmp_path: Path) -> None:
    for name, data in (("healthy", 0.5), ("frozen", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"step": n, "loss": 1, "data": data * n, "grad_norm": "inf"} for n in range(1, 21)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        scores = {"psnr": Score(value=20.0), "swd": Score(value=50.0)}
        metrics = {key: METRICS[key] for key in scores}
        Results(images=1, metrics=metrics, scores={"codi": {4: scores}}).save(
            folder / "results.json"
        )
    workdirs = {name: tmp_path / name for name in ("healthy", "frozen")}
    text = unhealthy.table(workdirs, 20).splitlines()
    assert text[0].startswith("| run | data at 2 | data at 10 | data at 20 |")
    means = [np.mean([0.5 * n for n in steps]) for steps in ((1, 2), (9, 10), (19, 20))]
    assert text[2] == (
        f"| healthy | {' | '.join(f'{x:.3g}' for x in means)} | - | - | - | inf | inf | inf | "
        "20.00 | 50.0 |"
    )
    unhealthy.draw(workdirs, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 1000

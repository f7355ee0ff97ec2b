"""What a run writes before its first step, and what it takes up again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from codi_jax import __version__, trees
from codi_jax.checkpoint.store import Store
from codi_jax.run.plan import plan
from codi_jax.run.start import Run, start
from codi_jax.run.train import finished_model, restore, train, write_origin
from codi_jax.sampling.load import CHECKPOINTS
from codi_jax.sampling.origin import Origin
from codi_jax.train.objectives import TEACHER
from codi_jax.typing import UserError
from tests.smallest import smallest


@pytest.fixture(scope="module")
def run() -> Run:
    with jax.numpy_dtype_promotion("standard"):
        return start(plan(smallest("pe_codi", seed=2)))


class Data:
    """A stream that knows its position alone."""

    position: Any = None

    def set_state(self, position: Any) -> None:
        self.position = position


def save(run: Run, folder: Path, step: int, frozen: str) -> Any:
    """A checkpoint of other values than the start's; the saved state."""
    moved = jax.tree.map(lambda x: x + 1.0, run.state.trainable)
    state = dataclasses.replace(run.state, trainable=moved)
    with Store(folder) as store:
        store.save(
            step,
            trainable=state.trainable,
            ema=state.ema,
            opt=state.opt,
            data_state={"next_index": step},
            meta={"frozen": frozen},
        )
    return state


def test_the_model_beside_is_of_the_same_task() -> None:
    trained = plan(smallest()).model
    assert finished_model("", trained) is None
    beside = finished_model("demo", trained)
    assert beside is not None and beside.name == "demo" and "unet" in beside.model.params
    for name, other in (("prior", trained), ("demo", plan(smallest(task="inpaint")).model)):
        with pytest.raises(UserError, match=f"beside='{name}'.*same task"):
            finished_model(name, other)


def test_the_origin_is_of_the_model(run: Run, tmp_path: Path) -> None:
    write_origin(run, tmp_path)
    origin, model = Origin.read(tmp_path)
    assert origin.frozen == trees.tree_hash({part: run.frozen[part] for part in ("vae", "unet")})
    assert (origin.seed, origin.trainable) == (2, "adapter/.*")
    assert set(origin.averages) == {"target", "eval"}
    assert not origin.guidance_input and origin.redraw == ()
    assert model.params == {} and not [*tmp_path.rglob("*.safetensors")]


def test_a_teacher_is_not_in_the_hash_of_the_model(run: Run, tmp_path: Path) -> None:
    """It is the run's; who loads the model has none."""
    write_origin(run, tmp_path / "alone")
    frozen = {**run.frozen, TEACHER: {"adapter": run.state.trainable["adapter"]}}
    taught = dataclasses.replace(run, frozen=frozen)
    write_origin(taught, tmp_path / "taught")
    hashes = {Origin.read(tmp_path / name)[0].frozen for name in ("alone", "taught")}
    assert len(hashes) == 1 and taught.frozen_hash() not in hashes


def test_the_origin_is_written_anew_when_a_run_is_resumed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text("{}")
    write_origin(run, tmp_path)
    assert "averages" in json.loads((tmp_path / "origin.json").read_text())


def test_without_a_checkpoint_the_start_is_the_state(run: Run, tmp_path: Path) -> None:
    data = Data()
    with Store(tmp_path) as store:
        assert restore(run, store, data, "x") is run.state
    assert data.position is None


def test_the_last_checkpoint_is_taken_up(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, frozen = Data(), run.frozen_hash()
    saved = save(run, tmp_path, 6, frozen)
    with Store(tmp_path) as store:
        state = restore(run, store, data, frozen)
    assert int(state.step) == 6 and state.step.dtype == np.int32
    assert data.position == {"next_index": 6}
    assert trees.tree_hash(state.trainable) == trees.tree_hash(saved.trainable)
    assert trees.tree_hash(state.ema) == trees.tree_hash(run.state.ema)
    assert jax.tree.structure(state) == jax.tree.structure(run.state)
    for leaf, like in zip(*map(jax.tree.leaves, (state, run.state)), strict=True):
        assert leaf.sharding == like.sharding
    assert capsys.readouterr().err == "resuming from step 6\n"


def test_other_frozen_parameters_are_refused(run: Run, tmp_path: Path) -> None:
    save(run, tmp_path, 6, "another hash")
    data = Data()
    with (
        Store(tmp_path) as store,
        pytest.raises(UserError, match=r"config\.model\.pretrained has changed on disk"),
    ):
        restore(run, store, data, run.frozen_hash())
    assert data.position is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__source": "nowhere"}, "nowhere"),
        ({"model__pretrained": "./nowhere"}, "nowhere"),
        ({"accumulation": 3}, "accumulation=3"),
        ({"task": "srr"}, "task='srr' is"),
    ],
)
def test_nothing_is_written_before_everything_fits(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        train(smallest(**changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_a_checkpoint_says_what_made_it(tmp_path: Path) -> None:
    """One step, whose files are then looked at."""
    config = smallest("finetune", steps=1, eval__steps=(1,), eval__count=1, model__adapter="mix")
    results = train(config, tmp_path)
    with Store(tmp_path / CHECKPOINTS, read_only=True) as store:
        meta = store.restore_meta(1)
    assert meta["version"] == __version__ and meta["jax"] == jax.__version__
    assert len(meta["frozen"]) == 64
    assert list(results.scores) == ["bicubic", "start", "finetune"]
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("architecture", "checkpoints", "config.json", "metrics.jsonl", "model"),
        *("origin.json", "results.json", "samples"),
    }

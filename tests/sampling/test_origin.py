"""What an unfinished run writes of its parameters' origin gives them back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from codi_jax import trees
from codi_jax.checkpoint.directory import save_directory
from codi_jax.run.plan import plan
from codi_jax.run.start import initial_params
from codi_jax.sampling.origin import ARCHITECTURE, ORIGIN, Origin
from codi_jax.typing import UserError
from configs import autoencoder
from tests.sampling.unfinished import architecture, assert_equal, origin_of
from tests.smallest import smallest

NOTHING = Origin(
    pretrained="",
    adapter="",
    autoencoder="",
    redraw=(),
    seed=0,
    guidance_input=False,
    trainable=".*",
    averages=("eval",),
    frozen="",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    """A model's directory, as an earlier run would leave it; its parameters are of seed 7."""
    path = tmp_path_factory.mktemp("trained")
    save_directory(path, tiny_model(smallest("finetune", seed=7)))
    return path


@pytest.mark.parametrize("method", ["codi", "pe_codi", "fast_codi"])
def test_what_was_written_is_read(method: str, tmp_path: Path) -> None:
    planned = plan(smallest(method, seed=5))
    origin = origin_of(planned, tmp_path, frozen="ab12")
    assert origin == dataclasses.replace(
        NOTHING,
        seed=5,
        trainable=planned.config.model.trainable,
        averages=tuple(planned.averages),
        frozen="ab12",
    )
    _, model = Origin.read(tmp_path)
    assert architecture(model) == architecture(planned.model)
    assert model.params == {}
    assert not [*tmp_path.rglob("*.safetensors")]


def test_a_file_that_lacks_an_entry_is_refused(tmp_path: Path) -> None:
    origin_of(plan(smallest()), tmp_path)
    content = json.loads((tmp_path / ORIGIN).read_text())
    del content["averages"]
    for broken in (content, [1], "x"):
        (tmp_path / ORIGIN).write_text(json.dumps(broken))
        with pytest.raises(UserError, match=r"origin\.json is incomplete: resume the run"):
            Origin.read(tmp_path)


def test_entries_of_a_later_version_are_left_alone(tmp_path: Path) -> None:
    origin = origin_of(plan(smallest()), tmp_path)
    content = json.loads((tmp_path / ORIGIN).read_text())
    (tmp_path / ORIGIN).write_text(json.dumps({**content, "later": 1}))
    assert Origin.read(tmp_path)[0] == origin


def test_an_architecture_that_is_gone_is_named(tmp_path: Path) -> None:
    origin_of(plan(smallest()), tmp_path)
    (tmp_path / ARCHITECTURE / "model_index.json").unlink()
    with pytest.raises(UserError, match="architecture holds no model"):
        Origin.read(tmp_path)


def test_random_parameters_are_drawn_again(tmp_path: Path) -> None:
    planned = plan(smallest(seed=3))
    origin = origin_of(planned, tmp_path)
    _, model = Origin.read(tmp_path)
    assert_equal(origin.params(model), initial_params(planned))
    other = dataclasses.replace(origin, seed=4).params(model)
    assert trees.tree_hash(other) != trees.tree_hash(origin.params(model))


def test_an_autoencoder_alone(tmp_path: Path) -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data, config.seed = 1, 2
    planned = plan(config)
    origin = origin_of(planned, tmp_path)
    _, model = Origin.read(tmp_path)
    assert architecture(model) == architecture(planned.model)
    assert_equal(origin.params(model), initial_params(planned))


def test_parts_are_read_or_drawn_as_the_run_did(trained: Path, tmp_path: Path) -> None:
    """The adapter comes along with the checkpoint; what was redrawn is not read."""
    made = {}
    for init in ("pretrained", "random"):
        config = smallest(model__pretrained=str(trained), model__init=init)
        planned = plan(config)
        origin = origin_of(planned, tmp_path / init)
        assert origin.redraw == (("unet", "adapter") if init == "random" else ())
        made[init] = origin.params(Origin.read(tmp_path / init)[1])
        assert_equal(made[init], initial_params(planned))
    assert_equal(made["random"]["vae"], made["pretrained"]["vae"])
    for part in ("unet", "adapter"):
        hashes = {trees.tree_hash(made[init][part]) for init in made}
        assert len(hashes) == 2, part


def test_a_guidance_scale_that_the_run_added(trained: Path, tmp_path: Path) -> None:
    config = smallest("guided", model__pretrained=str(trained), model__time_cond_proj_dim=6)
    planned = plan(config)
    origin = origin_of(planned, tmp_path)
    assert origin.guidance_input
    _, model = Origin.read(tmp_path)
    assert model.network.unet.time_cond_proj_dim == 6
    params = origin.params(model)
    assert_equal(params, initial_params(planned))
    np.testing.assert_array_equal(
        params["unet"]["time_embedding"]["cond_proj"]["kernel"], np.zeros((6, 8), np.float32)
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert trees.flatten(params).keys() == trees.flatten(shapes).keys()


def test_another_autoencoder_than_the_pretrained_models(
    trained: Path, tmp_path: Path, tiny_model: Any
) -> None:
    save_directory(tmp_path / "other", tiny_model(smallest("finetune", seed=8)))
    config = smallest(
        model__pretrained=str(trained), model__autoencoder=str(tmp_path / "other"), seed=1
    )
    planned = plan(config)
    origin = origin_of(planned, tmp_path / "w")
    assert origin.autoencoder == str(tmp_path / "other")
    params = origin.params(Origin.read(tmp_path / "w")[1])
    assert_equal(params, initial_params(planned))
    own = tiny_model(smallest("finetune", seed=7)).params
    assert trees.tree_hash(params["vae"]) != trees.tree_hash(own["vae"])
    assert_equal(params["unet"], own["unet"])

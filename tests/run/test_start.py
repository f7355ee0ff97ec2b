"""A run's arrays: what they are made from, where they lie, and what their hash covers."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax import trees
from codi_jax.checkpoint.directory import save_directory
from codi_jax.run.plan import plan
from codi_jax.run.start import Run, initial_params, start
from codi_jax.train.objectives import NULL_PROMPT, PROMPT, TEACHER
from codi_jax.typing import UserError
from configs import autoencoder
from tests.smallest import smallest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("trained")
    with jax.numpy_dtype_promotion("standard"):
        save_directory(path, tiny_model(smallest("finetune", seed=7)))
    return path


def run_with(**frozen: Any) -> Run:
    """A run of which the frozen parts count alone."""
    nothing: Any = None
    return Run(plan=nothing, state=nothing, frozen=frozen, step=None, encode_texts=None)


VAE = {"kernel": np.arange(3.0, dtype=np.float32)}
OTHER = {"kernel": np.arange(1.0, 4.0, dtype=np.float32)}


def test_the_hash_is_of_the_frozen_parameters() -> None:
    assert run_with(vae=VAE).frozen_hash() == trees.tree_hash({"vae": VAE})
    assert run_with(vae=VAE).frozen_hash() != run_with(vae=OTHER).frozen_hash()
    assert run_with(vae=VAE).frozen_hash() != run_with(unet=VAE).frozen_hash()


def test_prompts_are_not_in_the_hash() -> None:
    """Another machine encodes them a little differently."""
    plain = run_with(vae=VAE).frozen_hash()
    prompts = {PROMPT: {"text": np.ones(2)}, NULL_PROMPT: {"text": np.zeros(2)}}
    assert run_with(vae=VAE, **prompts).frozen_hash() == plain
    assert run_with(vae=VAE, **prompts).text == prompts[PROMPT]
    assert run_with(vae=VAE).text == {}


def test_the_teacher_and_lpips_are_the_runs_but_not_the_models() -> None:
    alone = run_with(vae=VAE)
    taught = run_with(vae=VAE, **{TEACHER: {"unet": VAE}, "lpips": OTHER})
    other = run_with(vae=VAE, **{TEACHER: {"unet": OTHER}, "lpips": OTHER})
    assert len({run.frozen_hash() for run in (alone, taught, other)}) == 3
    assert {run.frozen_hash(of_the_model=True) for run in (alone, taught, other)} == {
        alone.frozen_hash()
    }


def test_no_frozen_parameter_has_no_hash() -> None:
    assert run_with().frozen_hash() == ""
    taught = run_with(**{TEACHER: {"unet": VAE}})
    assert taught.frozen_hash(of_the_model=True) == "" != taught.frozen_hash()


def test_parameters_follow_the_seed_alone() -> None:
    first, again, other = (initial_params(plan(smallest(seed=n))) for n in (1, 1, 2))
    assert set(first) == {"vae", "unet", "adapter"}
    assert trees.tree_hash(first) == trees.tree_hash(again)
    for part in first:
        assert trees.tree_hash(first[part]) != trees.tree_hash(other[part])


def test_pretrained_parts_are_read(trained: Path, tiny_model: Any) -> None:
    expected = tiny_model(smallest("finetune", seed=7)).params
    read = initial_params(plan(smallest(model__pretrained=str(trained), seed=1)))
    assert trees.tree_hash(read) == trees.tree_hash(expected)
    config = smallest(model__pretrained=str(trained), model__init="random", seed=1)
    redrawn = initial_params(plan(config))
    assert trees.tree_hash(redrawn["vae"]) == trees.tree_hash(expected["vae"])
    assert trees.tree_hash(redrawn["unet"]) != trees.tree_hash(expected["unet"])


def test_weights_that_are_absent_are_named(trained: Path, tmp_path: Path) -> None:
    from codi_jax.checkpoint.directory import write_architecture

    write_architecture(tmp_path, plan(smallest("finetune")).model)
    with pytest.raises(UserError, match=r"(vae|unet|adapter) holds no .*safetensors"):
        initial_params(plan(smallest(model__pretrained=str(tmp_path))))


def test_a_start_has_the_shapes_and_places_of_its_plan() -> None:
    planned = plan(smallest("pe_codi"))
    run = start(planned)
    for made, shapes in ((run.state, planned.state), (run.frozen, planned.frozen)):
        assert jax.tree.structure(made) == jax.tree.structure(shapes)
        for leaf, shape in zip(*map(jax.tree.leaves, (made, shapes)), strict=True):
            assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
    shardings = jax.tree.leaves(planned.state_shardings)
    for leaf, sharding in zip(jax.tree.leaves(run.state), shardings, strict=True):
        assert leaf.sharding == sharding
    assert int(run.state.step) == 0
    assert set(run.state.trainable) == {"adapter"} and set(run.frozen) == {"vae", "unet"}
    for average in run.state.ema.values():
        assert trees.tree_hash(average) == trees.tree_hash(run.state.trainable)


def test_parameters_are_the_evaluation_average_and_the_frozen_ones() -> None:
    run = start(plan(smallest("pe_codi")))
    zeros = jax.tree.map(jnp.zeros_like, run.state.ema["eval"])
    state = dataclasses.replace(run.state, ema={**run.state.ema, "eval": zeros})
    params = run.params(state)
    assert set(params) == {"vae", "unet", "adapter"}
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(params["adapter"]))
    assert trees.tree_hash(params["unet"]) == trees.tree_hash(run.frozen["unet"])


def test_the_teacher_is_a_copy_of_the_start(trained: Path) -> None:
    """A donated state must not take it along."""
    run = start(plan(smallest("cm", model__pretrained=str(trained))))
    teacher = run.frozen[TEACHER]
    assert set(teacher) == {"unet", "adapter"}
    assert trees.tree_hash(teacher) == trees.tree_hash(run.state.trainable)
    pointers = [
        {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
        for tree in (teacher, run.state)
    ]
    assert not pointers[0] & pointers[1]
    assert run.frozen_hash() != run.frozen_hash(of_the_model=True)


@pytest.mark.slow
def test_a_linear_start_is_for_the_run_and_not_for_loading() -> None:
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    planned = plan(config)
    drawn = initial_params(planned)
    run = start(planned)
    assert trees.tree_hash(run.state.trainable) != trees.tree_hash(drawn)
    config.model.vae_init = "random"
    again = start(plan(config))
    assert trees.tree_hash(again.state.trainable) == trees.tree_hash(drawn)


def test_pictures_are_encoded_by_the_runs_autoencoder() -> None:
    run = start(plan(smallest()))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    latents = run.encode(run.params(run.state), images)
    assert latents.shape == (2, 4, 6, 4)
    moved = trees.overlay(run.frozen, {"vae": jax.tree.map(lambda x: 2 * x, run.frozen["vae"])})
    assert not np.allclose(run.encode(moved, images), latents)

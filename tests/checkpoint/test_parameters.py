"""Parameters are read where they are, drawn where they are not; a guidance scale added later."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax import trees
from codi_jax.checkpoint.directory import read_directory, save_directory
from codi_jax.checkpoint.parameters import add_guidance_input, with_guidance_input, with_params
from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.parallel.mesh import make_mesh
from codi_jax.parallel.sharding import param_shardings
from codi_jax.typing import UserError
from tests.models.tiny_unets import COND, PLAIN, T, Z

# They share small compiled operations with the tests of all adapters.
pytestmark = pytest.mark.xdist_group("adapters")

VAE = AutoencoderConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2)
KEY = jax.random.key(0)


def model_with(adapter: str) -> Model:
    network = AdaptedUNet(unet=PLAIN).with_adapter(adapter, 2)
    return Model(vae=VAE, network=network, schedule=DiscreteSchedule(), task="sr")


@pytest.fixture(scope="module")
def drawn() -> Model:
    return with_params(model_with("mix"), KEY)


@pytest.fixture(scope="module")
def saved(drawn: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    save_directory(path, drawn)
    return path


def same(a: Any, b: Any) -> bool:
    return trees.tree_hash(a) == trees.tree_hash(b)


def test_every_part_is_drawn_by_the_key(drawn: Model) -> None:
    shapes = jax.eval_shape(drawn.init, KEY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn.params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn.params)} == {np.dtype(np.float32)}
    assert same(with_params(model_with("mix"), KEY).params, drawn.params)
    other = with_params(model_with("mix"), jax.random.key(1)).params
    assert not any(same(other[part], drawn.params[part]) for part in other)


def test_a_copied_encoder_is_the_unets(drawn: Model) -> None:
    copied = trees.flatten(drawn.params["adapter"])
    unet = trees.flatten(drawn.params["unet"])
    shared = [path for path in copied if path in unet]
    assert shared
    for path in shared:
        np.testing.assert_array_equal(copied[path], unet[path])


def test_what_is_on_disk_is_read(drawn: Model, saved: Path) -> None:
    read = with_params(read_directory(saved), jax.random.key(9))
    assert same(read.params, drawn.params)


def test_a_new_adapter_copies_the_encoder_that_was_read(drawn: Model, saved: Path) -> None:
    prior = read_directory(saved)
    assert isinstance(prior, Model)
    network = prior.network.without_adapter().with_adapter("mix", 2)
    begun = dataclasses.replace(prior, network=network, adapter_directory=None)
    made = with_params(begun, jax.random.key(9)).params
    assert same(made["unet"], drawn.params["unet"]) and same(made["vae"], drawn.params["vae"])
    copied, unet = trees.flatten(made["adapter"]), trees.flatten(drawn.params["unet"])
    for path in copied.keys() & unet.keys():
        np.testing.assert_array_equal(copied[path], unet[path])


@pytest.mark.parametrize("redraw", [("unet",), ("adapter",), ("unet", "adapter")])
def test_parts_are_redrawn_though_they_are_there(
    redraw: tuple[str, ...], drawn: Model, tmp_path: Path
) -> None:
    moved = {
        part: jax.tree.map(lambda x: x + 1.0, tree) if part in redraw else tree
        for part, tree in drawn.params.items()
    }
    save_directory(tmp_path, dataclasses.replace(drawn, params=moved))
    made = with_params(read_directory(tmp_path), jax.random.key(9), redraw=redraw).params
    for part in moved:
        assert same(made[part], moved[part]) == (part not in redraw)


def test_a_part_may_be_absent_only_where_new_ones_are_made(saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(saved, tmp_path / "m")
    architecture = read_directory(root)
    shutil.rmtree(root / "unet")
    made = with_params(architecture, jax.random.key(9)).params
    assert set(made) == {"vae", "unet", "adapter"}
    with pytest.raises(UserError, match="unet"):
        with_params(architecture, jax.random.key(9), new=False)


def test_a_folder_without_weights_is_no_absent_part(saved: Path, tmp_path: Path) -> None:
    root = shutil.copytree(saved, tmp_path / "m")
    next((root / "vae").glob("*.safetensors")).unlink()
    for new in (True, False):
        with pytest.raises(UserError, match=r"vae holds no .*safetensors"):
            with_params(read_directory(root), KEY, new=new)


def test_an_autoencoder_from_elsewhere(drawn: Model, saved: Path, tmp_path: Path) -> None:
    other = with_params(AutoencoderModel(vae=VAE), jax.random.key(5))
    save_directory(tmp_path, other)
    model = dataclasses.replace(read_directory(saved), vae_directory=tmp_path / "vae")
    made = with_params(model, KEY, new=False).params
    assert same(made["vae"], other.params["vae"])
    assert same(made["unet"], drawn.params["unet"])


@pytest.mark.parametrize("origin", ["read", "drawn"])
def test_each_tensor_goes_to_its_place(origin: str, drawn: Model, saved: Path) -> None:
    mesh = make_mesh(4, 2)
    model = read_directory(saved) if origin == "read" else model_with("mix")
    made = with_params(model, KEY, partial(param_shardings, mesh)).params
    expected = param_shardings(mesh, jax.eval_shape(drawn.init, KEY))
    for leaf, sharding in zip(*map(jax.tree.leaves, (made, expected)), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    assert same(made, drawn.params)


# A guidance scale.


def predict(model: Model, params: Any, scale: float | None) -> np.ndarray:
    cond = {name: jnp.asarray(COND[name]) for name in ("latents", "image")}
    if scale is not None:
        cond["guidance_scale"] = jnp.full(2, scale, jnp.float32)
    return np.asarray(model.network.predict(params, jnp.asarray(Z), jnp.asarray(T), cond))


@pytest.mark.parametrize("adapter", ["mix", "controlnet", "none"])
def test_a_new_guidance_input_changes_nothing_at_any_scale(
    adapter: str, random_params: Any
) -> None:
    plain = model_with(adapter)
    params = random_params(plain.init)
    model = with_guidance_input(plain, 6)
    extended = add_guidance_input(params, model)
    expected = predict(plain, params, None)
    for scale in (0.0, 1.0, 7.5):
        np.testing.assert_array_equal(predict(model, extended, scale), expected)


def test_a_trained_guidance_input_is_read(random_params: Any) -> None:
    """The inverse: the scale reaches the output once the projection is not zero."""
    model = with_guidance_input(model_with("mix"), 6)
    params = random_params(model.init)
    assert not np.allclose(predict(model, params, 1.5), predict(model, params, 4.0))


@pytest.mark.parametrize(("adapter", "parts"), [("mix", 2), ("controlnet", 1)])
def test_every_part_that_reads_it_gets_one(adapter: str, parts: int, random_params: Any) -> None:
    plain = model_with(adapter)
    model = with_guidance_input(plain, 6)
    params = random_params(plain.init)
    extended = add_guidance_input(params, model)
    new = trees.flatten(extended).keys() - trees.flatten(params).keys()
    assert {path.split("/", 1)[1] for path in new} == {"time_embedding/cond_proj/kernel"}
    assert len(new) == parts
    shapes = jax.eval_shape(model.init, KEY)
    assert jax.tree.map(np.shape, extended) == jax.tree.map(lambda x: x.shape, shapes)
    assert "cond_proj" not in params["unet"]["time_embedding"]


def test_the_new_input_is_placed() -> None:
    mesh = make_mesh(4, 2)
    place = partial(param_shardings, mesh)
    model = with_guidance_input(model_with("none"), 16)
    params = {"unet": {}, "vae": {}}
    kernel = add_guidance_input(params, model, place)["unet"]["time_embedding"]["cond_proj"]
    assert kernel["kernel"].sharding == place({"x": {"kernel": kernel["kernel"]}})["x"]["kernel"]


def test_a_size_that_does_not_fit_is_refused() -> None:
    model = with_guidance_input(model_with("mix"), 6)
    assert model.network.unet.time_cond_proj_dim == 6
    assert with_guidance_input(model, 6) is model
    with pytest.raises(UserError, match=r"time_cond_proj_dim=8.*U-Net has 6: leave it at 0"):
        with_guidance_input(model, 8)

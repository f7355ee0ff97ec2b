import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax import trees
from codi_jax.checkpoint.store import Store
from codi_jax.parallel.mesh import make_mesh
from codi_jax.parallel.sharding import state_shardings
from codi_jax.typing import UserError

OPTIMISER = optax.adamw(1e-3)


def params(seed=0, width=8):
    a, b = jax.random.split(jax.random.key(seed))
    return {
        "unet": {"conv_in": {"kernel": jax.random.normal(a, (3, 3, 4, width))}},
        "to_out_0": {"kernel": jax.random.normal(b, (width, 3)), "bias": jnp.full(3, jnp.nan)},
        "mu": jnp.float32(0.1),
    }


def state(seed=0, width=8):
    return {
        "trainable": params(seed, width),
        "ema": {"target": params(seed + 1, width), "slow": params(seed + 2, width)},
        "opt": OPTIMISER.init(params(seed, width)),
    }


def place(tree, mesh):
    return jax.device_put(tree, state_shardings(mesh, tree))


def template(tree, mesh):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        tree,
        state_shardings(mesh, tree),
    )


def save(store, step, items, **kwargs):
    kwargs = {"data_state": {"next_index": step}, "meta": {"config": "abc"}} | kwargs
    return store.save(step, **items, **kwargs)


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == w.dtype
        assert np.asarray(g).tobytes() == np.asarray(w).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of step 7, saved from a mesh of 2 x 4."""
    directory = tmp_path_factory.mktemp("store")
    with Store(directory) as store:
        assert save(store, 7, place(state(), make_mesh(2, 4)))
    return directory


@pytest.mark.parametrize("sizes", [(2, 4), (8, 1), (1, 2), (1, 1)])
def test_restores_bit_for_bit_onto_any_mesh(saved, sizes):
    mesh = make_mesh(*sizes)
    want = template(state(), mesh)
    with Store(saved, read_only=True) as store:
        got = store.restore(7, want)
    assert_identical(got, state())
    for leaf, spec in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert leaf.sharding.is_equivalent_to(spec.sharding, leaf.ndim)


#: Copies x shards of 1, 2 and 8 devices.
MESHES = [(1, 1), (2, 1), (1, 2), (8, 1), (1, 8)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # By default each is saved from once and restored to once.
        pytest.param(a, b, marks=[pytest.mark.slow] if (i - j) % 5 != 2 else [])
        for i, a in enumerate(MESHES)
        for j, b in enumerate(MESHES)
    ],
)
def test_a_state_of_any_mesh_is_the_same_on_any_other(before, after, tmp_path):
    with Store(tmp_path) as store:
        save(store, 1, place(state(), make_mesh(*before)))
    want = template(state(), make_mesh(*after))
    with Store(tmp_path, read_only=True) as store:
        got = store.restore(1, want)
    assert_identical(got, state())
    for leaf, spec in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert leaf.sharding.is_equivalent_to(spec.sharding, leaf.ndim)


def test_one_item_alone_and_without_shardings(saved):
    with Store(saved, read_only=True) as store:
        got = store.restore(7, {"ema": jax.eval_shape(lambda: state()["ema"])})
        assert store.restore_meta(7) == {"config": "abc", "step": 7}
        assert store.restore_data_state(7) == {"next_index": 7}
    assert got.keys() == {"ema"}
    assert_identical(got["ema"], state()["ema"])
    assert {d for leaf in jax.tree.leaves(got) for d in leaf.devices()} == {jax.devices()[0]}


def test_save_is_complete_before_the_arrays_are_donated(tmp_path):
    step = jax.jit(lambda p: jax.tree.map(lambda x: x * 2.0 + 1.0, p), donate_argnums=0)
    live = {"w": {"kernel": jnp.arange(2.0**18).reshape(512, 512)}}
    before = jax.tree.map(lambda x: np.array(x, copy=True), live)
    with Store(tmp_path) as store:
        save(store, 1, {"trainable": live, "ema": {}, "opt": ()})
        for _ in range(3):
            live = step(live)
    with Store(tmp_path, read_only=True) as store:
        got = store.restore(1, {"trainable": jax.eval_shape(lambda: before)})
    assert_identical(got["trainable"], before)


def test_interval_force_limit_and_repetition(tmp_path):
    items = {"trainable": {"mu": jnp.zeros(1)}, "ema": {}, "opt": (optax.EmptyState(),)}
    with Store(tmp_path, max_to_keep=2, save_interval_steps=10) as store:
        assert store.latest_step() is None
        due = [step for step in range(5, 31) if save(store, step, items)]
        assert due == [10, 20, 30]
    with Store(tmp_path, max_to_keep=2, save_interval_steps=10) as store:
        assert store.all_steps() == [20, 30]
        assert not store.should_save(33)
        assert save(store, 33, items, force=True)
    with Store(tmp_path, max_to_keep=2, save_interval_steps=10) as store:
        assert not save(store, 33, items, force=True)  # a resumed run reaches its own step
        assert store.latest_step() == 33
        assert store.restore(33, {"opt": items["opt"]}) == {"opt": items["opt"]}


def test_data_state_of_bytes_comes_back_as_bytes(tmp_path):
    with Store(tmp_path) as store:
        save(store, 1, {"trainable": params(), "ema": {}, "opt": ()}, data_state=b'{"a": 1}')
    with Store(tmp_path, read_only=True) as store:
        assert store.restore_data_state(1) == b'{"a": 1}'


def test_data_state_after_a_change_of_the_number_of_processes(tmp_path):
    with Store(tmp_path) as store:
        save(store, 1, {"trainable": params(), "ema": {}, "opt": ()})
    with Store(tmp_path, read_only=True) as store:
        first = tmp_path / "1" / "data" / "process_0.json"
        second = first.with_name("process_1.json")
        second.write_text(first.read_text())
        assert store.restore_data_state(1) == {"next_index": 1}
        second.write_text('{"json": {"next_index": 5}}')
        with pytest.raises(UserError, match="positions of 2 processes.*this run has 1"):
            store.restore_data_state(1)


def test_an_unfinished_save_is_ignored(saved, tmp_path):
    shutil.copytree(saved / "7", tmp_path / "7")
    shutil.copytree(saved / "7", tmp_path / "8.orbax-checkpoint-tmp")
    with Store(tmp_path) as store:
        assert store.latest_step() == 7
        assert_identical(store.restore(7, {"trainable": params()})["trainable"], params())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda p: params(width=16),
            r"to_out_0/kernel is float32\[8, 3\] in the checkpoint and "
            r"float32\[16, 3\] in this model \(and 1 more\)",
        ),
        (lambda p: p | {"extra": p["mu"]}, "extra is not in the checkpoint"),
        (lambda p: trees.split(p, "mu")[1], "mu is not in this model"),
        (lambda p: p | {"mu": p["mu"].astype(jnp.bfloat16)}, "mu is float32.*bfloat16"),
    ],
)
def test_another_architecture_is_refused_by_name(saved, change, said):
    with Store(saved, read_only=True) as store, pytest.raises(UserError, match=said):
        store.restore(7, {"trainable": change(params())})


def test_missing_step_item_and_directory(saved, tmp_path):
    with Store(saved, read_only=True) as store:
        with pytest.raises(UserError, match="step 6 in .*there are: 7"):
            store.restore(6, {"ema": params()})
        with pytest.raises(UserError, match="step 6"):
            store.restore_meta(6)
    with pytest.raises(UserError, match="nowhere is not a directory"):
        Store(tmp_path / "nowhere", read_only=True)
    with Store(tmp_path) as store:
        save(store, 1, {"trainable": params(), "ema": {}, "opt": ()})
    with Store(tmp_path, read_only=True) as store, pytest.raises(UserError, match="item 'ema'"):
        store.restore(1, {"ema": params()})


# Tensorstore's other reads fail after the first one has ended orbax's event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_says_so(saved, tmp_path):
    shutil.copytree(saved / "7", tmp_path / "7")
    for file in (tmp_path / "7" / "trainable").rglob("d/*"):
        file.write_bytes(b"")
    with Store(tmp_path) as store, pytest.raises(UserError, match="damaged.*Delete"):
        store.restore(7, {"trainable": params()})
    with Store(tmp_path, read_only=True) as store:  # the other items are whole
        ema = store.restore(7, {"ema": state()["ema"]})["ema"]
    assert_identical(ema, state()["ema"])


@pytest.mark.parametrize(
    ("file", "read"),
    [("meta/metadata", Store.restore_meta), ("data/process_0.json", Store.restore_data_state)],
)
@pytest.mark.parametrize("gone", [True, False])
def test_small_files_that_are_damaged_say_so_too(file, read, gone, saved, tmp_path):
    shutil.copytree(saved / "7", tmp_path / "7")
    (tmp_path / "7" / file).write_bytes(b"")
    if gone:
        (tmp_path / "7" / file).unlink()
    with Store(tmp_path) as store, pytest.raises(UserError, match="damaged.*Delete"):
        read(store, 7)


def test_read_only_writes_nothing(saved):
    files = sorted(saved.rglob("*"))
    with Store(saved, read_only=True) as store:
        assert not save(store, 8, state())
    assert sorted(saved.rglob("*")) == files

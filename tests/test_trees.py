import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax import trees


def example():
    return {
        "unet": {
            "conv_in": {"kernel": jnp.ones((3, 3, 4, 8)), "bias": jnp.zeros(8)},
            "mid_block": {"kernel": jnp.full((8, 8), 2.0)},
        },
        "mu": jnp.zeros(()),
    }


def test_flatten_joins_paths_and_unflatten_inverts():
    tree = example()
    flat = trees.flatten(tree)
    assert list(flat) == [
        "unet/conv_in/kernel",
        "unet/conv_in/bias",
        "unet/mid_block/kernel",
        "mu",
    ]
    assert flat["unet/mid_block/kernel"] is tree["unet"]["mid_block"]["kernel"]
    assert jax.tree.structure(trees.unflatten(flat)) == jax.tree.structure(tree)


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"]])
def test_unflatten_refuses_a_leaf_that_is_a_branch(paths):
    with pytest.raises(ValueError, match="leaf"):
        trees.unflatten(dict.fromkeys(paths, 0))


def test_flatten_refuses_keys_that_would_not_come_back():
    with pytest.raises(ValueError, match="a/b"):
        trees.flatten({"a/b": 1})


def test_split_matches_whole_paths_and_drops_empty_branches():
    matching, rest = trees.split(example(), r".*/kernel")
    assert set(trees.flatten(matching)) == {"unet/conv_in/kernel", "unet/mid_block/kernel"}
    assert rest.keys() == {"unet", "mu"}
    assert rest["unet"].keys() == {"conv_in"}  # mid_block had nothing but its kernel
    assert trees.split(example(), "conv_in")[0] == {}  # a part of a path is no match


def test_merge_inverts_split_and_refuses_overlap():
    tree = example()
    for regex in (r"unet/.*", r".*bias|mu", r".*", r"nothing"):
        merged = trees.merge(*trees.split(tree, regex))
        assert jax.tree.structure(merged) == jax.tree.structure(tree)
    with pytest.raises(ValueError, match="mu"):
        trees.merge({"mu": 1}, {"mu": 2, "x": 1})
    with pytest.raises(ValueError, match="a"):
        trees.merge({"a": 1}, {"a": {"b": 2}})


def test_count_of_arrays_and_of_shapes():
    assert trees.count(example()) == 3 * 3 * 4 * 8 + 8 + 64 + 1
    assert trees.count(jax.eval_shape(example)) == 361


def test_tree_hash_is_the_documented_sha256():
    tree = {"b": np.arange(3, dtype=np.int32), "a": {"x": np.float32([1.5])}}
    data = b"a/x\0float32\0(1,)\0" + np.float32([1.5]).tobytes()
    data += b"b\0int32\0(3,)\0" + np.arange(3, dtype=np.int32).tobytes()
    assert trees.tree_hash(tree) == hashlib.sha256(data).hexdigest()


def test_tree_hash_sees_every_change_and_no_order_or_device():
    base = {"a": jnp.zeros(4), "b": jnp.ones(4)}
    same = trees.tree_hash(base)
    mesh = jax.make_mesh((8,), ("x",))
    spread = jax.device_put(
        {"b": np.ones(4, np.float32), "a": np.zeros(4, np.float32)},
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()),
    )
    assert trees.tree_hash(spread) == same
    others = [
        {"a": -jnp.zeros(4), "b": base["b"]},  # the sign bit alone
        {"a": base["a"].reshape(2, 2), "b": base["b"]},
        {"a": base["a"].astype(jnp.int32), "b": base["b"]},
        {"a": base["b"], "b": base["a"]},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({same, *map(trees.tree_hash, others)}) == len(others) + 1

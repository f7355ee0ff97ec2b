import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from codi_jax.parallel import mesh as meshes
from codi_jax.typing import UserError


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1)),
        ({"fsdp": 4}, (2, 4)),
        ({"data": 2, "fsdp": -1}, (2, 4)),
        ({"data": 1, "fsdp": 8}, (1, 8)),
        ({"data": 1}, (1, 1)),
    ],
)
def test_sizes(sizes, shape):
    mesh = meshes.make_mesh(**sizes)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == shape
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_given_devices_are_used():
    devices = jax.devices()[4:]
    mesh = meshes.make_mesh(fsdp=2, devices=devices)
    assert mesh.devices.shape == (2, 2)
    assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"fsdp": 3}, "fsdp=3 does not divide the 8 devices"),
        ({"data": 5, "fsdp": -1}, "data=5 does not divide the 8 devices"),
        ({"data": 4, "fsdp": 4}, "= 16 devices, but there are 8"),
        ({"fsdp": 16}, "fsdp=16 does not divide the 8 devices"),
        ({"data": 0}, "data=0"),
        ({"data": -1, "fsdp": -1}, "only one"),
    ],
)
def test_sizes_that_do_not_fit(sizes, said):
    with pytest.raises(UserError, match=said):
        meshes.make_mesh(**sizes)


def test_check_batch_names_the_neighbours():
    mesh = meshes.make_mesh(fsdp=4)
    assert meshes.check_batch(mesh, 16) == 16
    with pytest.raises(UserError, match=r"batch_size=12 .* 8 devices .* use 8 or 16"):
        meshes.check_batch(mesh, 12)
    with pytest.raises(UserError, match="use 8"):
        meshes.check_batch(mesh, 0)


def test_put_batch_gives_each_device_its_own_examples():
    mesh = meshes.make_mesh(fsdp=4)
    host = {
        "image": np.arange(16 * 2 * 2 * 3, dtype=np.float32).reshape(16, 2, 2, 3),
        "index": np.arange(16, dtype=np.int32),
    }
    batch = meshes.put_batch(mesh, host)
    for name, array in batch.items():
        assert array.sharding.is_equivalent_to(meshes.batch_sharding(mesh), array.ndim)
        np.testing.assert_array_equal(array, host[name])
    seen = [shard.data.tolist() for shard in batch["index"].addressable_shards]
    assert sorted(seen) == [[i, i + 1] for i in range(0, 16, 2)]
    with pytest.raises(UserError, match="batch_size=12"):
        meshes.put_batch(mesh, {"index": np.arange(12)})


def test_mean_over_a_sharded_batch_is_the_mean_over_all():
    mesh = meshes.make_mesh(fsdp=4)
    values = np.arange(8, dtype=np.float32)
    batch = meshes.put_batch(mesh, {"x": values})
    mean = jax.jit(jnp.mean, out_shardings=meshes.replicated(mesh))(batch["x"])
    assert mean.sharding.is_fully_replicated
    assert float(mean) == 3.5


def test_several_processes_share_the_batch_and_use_all_devices(monkeypatch):
    mesh = meshes.make_mesh(fsdp=4)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert meshes.check_batch(mesh, 16) == 8
    with pytest.raises(UserError, match="batch_size=12"):  # six examples of each process
        meshes.put_batch(mesh, {"index": np.arange(6)})
    with pytest.raises(UserError, match="the 2 processes have 8 and must use them all"):
        meshes.make_mesh(data=1)

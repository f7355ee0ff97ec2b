"""The device mesh and where a batch lives on it.

Two axes: ``data`` holds copies of the parameters, ``fsdp`` holds their shards. Both split the
batch, so every device works on its own examples. One device is the mesh 1 x 1: the code that
runs there is the code that runs on a pod.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from codi_jax.typing import Array, UserError

AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of ``data`` x ``fsdp`` devices with the axes ``("data", "fsdp")``.

    Args:
        data: number of copies of the parameters; -1 for as many as the devices allow.
        fsdp: number of devices over which one copy is spread; -1 for as many as they allow.
        devices: defaults to all devices of all processes.

    A single process may use fewer devices than it has, if both sizes are given; several
    processes must use them all, or some process would hold no part of the arrays.

    Raises:
        UserError: the sizes do not fit the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "fsdp": fsdp}
    n = len(devices)
    for name, size in sizes.items():
        if size != -1 and size < 1:
            raise UserError(f"mesh {name}={size}: give a positive number, or -1 for the rest.")
    if data == fsdp == -1:
        raise UserError("mesh data=-1, fsdp=-1: only one of the two can be -1 (the rest).")
    for name, other in (("data", "fsdp"), ("fsdp", "data")):
        if sizes[name] == -1:
            if n % sizes[other]:
                raise UserError(
                    f"mesh {other}={sizes[other]} does not divide the {n} devices: choose a "
                    f"divisor of {n}, or give {name} too."
                )
            sizes[name] = n // sizes[other]
    needed = sizes["data"] * sizes["fsdp"]
    shown = f"mesh data={sizes['data']} x fsdp={sizes['fsdp']} = {needed} devices"
    if needed > n:
        raise UserError(
            f"{shown}, but there are {n}: lower data or fsdp, or set data=-1 to use what is there."
        )
    if needed < n and jax.process_count() > 1:
        raise UserError(
            f"{shown}, but the {jax.process_count()} processes have {n} and must use them all: "
            "set data=-1."
        )
    # Auto axes: under jax.make_mesh's default (Explicit) linen's Conv fails on sharded kernels.
    return jax.make_mesh(
        (sizes["data"], sizes["fsdp"]),
        AXES,
        axis_types=(AxisType.Auto,) * 2,
        devices=devices[:needed],
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 split over all devices; for arrays of any rank >= 1."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: Mesh, batch_size: int) -> int:
    """Check that a global batch can be split evenly.

    Args:
        mesh: the devices.
        batch_size: number of examples over all devices.

    Returns:
        This process's share of them.

    Raises:
        UserError: the batch cannot be split evenly over the devices.
    """
    n = mesh.size
    if batch_size < 1 or batch_size % n:
        below, above = batch_size // n * n, (max(batch_size, 0) // n + 1) * n
        choices = f"{below} or {above}" if below > 0 else f"{above}"
        raise UserError(
            f"batch_size={batch_size} is not a positive multiple of the mesh's {n} devices "
            f"({mesh.shape['data']} data x {mesh.shape['fsdp']} fsdp): use {choices}."
        )
    return batch_size // jax.process_count()


def put_batch(mesh: Mesh, host_batch: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Bring a batch to the devices, split on axis 0.

    Args:
        mesh: the devices.
        host_batch: host arrays [B / processes, ...] by name: this process's own examples. All
            processes must pass equally many.

    Returns:
        Global arrays [B, ...].

    Raises:
        UserError: the batch cannot be split evenly over the devices.
    """
    sharding = batch_sharding(mesh)
    arrays = {name: np.asarray(value) for name, value in host_batch.items()}
    for local_size in {array.shape[0] for array in arrays.values()}:
        check_batch(mesh, local_size * jax.process_count())
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in arrays.items()
    }

"""Which batch fits the devices, and which change of a config would make it fit.

Everything here is found by compiling: nothing runs, so nothing runs out of memory.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import Any

from codi_jax.models.remat import POLICIES, remat_policy
from codi_jax.parallel.compiling import DoesNotFit, compile_traced, compiled_bytes, device_memory
from codi_jax.parallel.mesh import make_mesh
from codi_jax.run.config import ConfigDict
from codi_jax.run.plan import Plan, plan
from codi_jax.run.summary import gib
from codi_jax.typing import UserError

#: Pictures a device beyond which no batch is tried.
MOST = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
    """What a step needs of each device.

    Attributes:
        bytes: at its peak; where the compiler gave up, what it found to be needed at least.
        fits: whether the device has that.
    """

    bytes: int
    fits: bool


def need(planned: Plan) -> Need:
    """Compile the step of a plan.

    Raises:
        UserError: the compiler does not say what the step needs.
    """
    limit = device_memory(planned.mesh.devices.flat[0])
    try:
        size = compiled_bytes(compile_traced(planned.traced))
    except DoesNotFit as error:
        return Need(bytes=error.needed or limit + 1, fits=False)
    if size is None:
        raise UserError("the compiler for these devices does not say what memory a step needs.")
    return Need(bytes=size, fits=size <= limit)


def changed(planned: Plan, **values: Any) -> Plan:
    """The plan of the same run on the same devices with other values of its config.

    Args:
        planned: the plan.
        values: by key, with ``__`` for the dots.
    """
    config = ConfigDict(planned.config.to_dict())
    for key, value in values.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    devices = list(planned.mesh.devices.flat)
    fsdp = values.get("mesh__fsdp", planned.mesh.shape["fsdp"])
    return plan(config, make_mesh(data=len(devices) // fsdp, fsdp=fsdp, devices=devices))


def find_batch(planned: Plan) -> tuple[int, Need]:
    """The largest ``config.batch_size`` whose step fits, and what it needs.

    A line on standard error tells of each batch that is compiled.

    Raises:
        UserError: not even one picture a device fits.
    """
    unit = planned.config.accumulation * planned.mesh.size

    def measure(count: int) -> Need:
        found = need(changed(planned, batch_size=count * unit))
        told = "" if found.fits else ": too much"
        print(f"batch_size={count * unit}: {gib(found.bytes)} a device{told}", file=sys.stderr)
        return found

    count, found = largest(measure, device_memory(planned.mesh.devices.flat[0]))
    if not found.fits:
        raise UserError(
            f"one picture a device needs {gib(found.bytes)}, and it has less; without --find_batch "
            "it is computed what would make it fit."
        )
    return count * unit, found


def largest(measure: Callable[[int], Need], limit: float) -> tuple[int, Need]:
    """The largest count, from 1 to :data:`MOST`, that fits, with few measurements.

    Memory is nearly a straight line in the count: two measurements tell where it meets the limit,
    and neighbours are measured until one fits and the next does not.

    Args:
        measure: what a count needs.
        limit: bytes of one device.

    Returns:
        The count and its need; 1 and its need if not even that fits.
    """
    known = {1: measure(1)}
    low, high = 1, MOST + 1
    if not known[1].fits:
        return 1, known[1]
    step = 2
    while high - low > 1:
        count = min(max(step, low + 1), high - 1)
        found = known[count] = measure(count)
        low, high = (count, high) if found.fits else (low, count)
        slope = (found.bytes - known[1].bytes) / (count - 1)
        step = 1 + int((limit - known[1].bytes) / slope) if slope > 0 else 2 * count
    return low, known[low]


def remedies(planned: Plan) -> list[str]:
    """For a step that does not fit: what each single change of the config would need, in words.

    Of each key, changes are compiled from the least until one fits.
    """
    lines = []
    for key, values in _changes(planned):
        for value in values:
            found = need(changed(planned, **{key: value}))
            told = "it fits" if found.fits else "it does not fit"
            line = f"config.{key.replace('__', '.')}={value}: {gib(found.bytes)} a device, {told}"
            print(line, file=sys.stderr)
            if found.fits:
                break
        lines.append(line)
    return lines


def _changes(planned: Plan) -> Iterator[tuple[str, list[Any]]]:
    """Keys that cost memory, and values that cost ever less of it."""
    config, devices = planned.config, planned.mesh.size
    at = POLICIES.index(remat_policy(config.model.remat))
    batch, parts = config.batch_size, config.accumulation
    a_device = batch // devices
    stronger = [policy for policy in POLICIES[at + 1 :] if policy != "dots"]
    powers = [2**i for i in range(1, a_device.bit_length())]
    wider = [n for n in range(planned.mesh.shape["fsdp"] + 1, devices + 1) if devices % n == 0]
    for key, values in (
        ("model__remat", stronger),
        ("mesh__fsdp", wider),
        ("accumulation", [parts * n for n in powers if a_device % (parts * n) == 0]),
        ("batch_size", [batch // n for n in powers if a_device % (parts * n) == 0]),
    ):
        if values:
            yield key, values

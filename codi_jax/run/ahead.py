"""A run's programs compiled for machines that are not there: do they fit, what do they cost."""

import dataclasses
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax

from codi_jax.checkpoint.hub import architecture_path
from codi_jax.parallel.chips import Chip, chip_of
from codi_jax.parallel.collectives import (
    Gathers,
    Traffic,
    collectives,
    gathers,
    windowed_loops,
)
from codi_jax.parallel.compiling import (
    DoesNotFit,
    compile_traced,
    compiled_bytes,
    device_memory,
)
from codi_jax.parallel.hlo import Program
from codi_jax.parallel.mesh import batch_sharding, make_mesh
from codi_jax.parallel.scheduled import scheduled_hlo
from codi_jax.parallel.sharding import bytes_a_device
from codi_jax.parallel.topology import topology_devices
from codi_jax.run.config import ConfigDict
from codi_jax.run.plan import Plan, plan
from codi_jax.run.summary import gib
from codi_jax.train.flops import jaxpr_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is known of a program before it runs.

    Attributes:
        what: the program: "step", or "sample".
        devices: how many.
        device_kind: of all of them.
        batch_size: of the global batch.
        flops: of one call, all devices together, counted from the jaxpr.
        needed_flops: without what is computed again for the gradient.
        arguments: bytes a device of parameters, averages, moments and batch.
        memory: bytes that a device has for it.
        peak: bytes a device while it runs, at least where it does not fit; None if it was not
            compiled or the compiler did not say.
        fits: whether the devices have memory for it; None if it was not compiled.
        passes: how often a bound counts the arguments' way through the memory.
        traffic: collectives by kind, of one device and call.
        gathers: what the all-gathers among them are of.
        windowed: convolutions or products that XLA made loops over slices of.
        compile_seconds: None if it was not compiled.
        schedule_seconds: until it was scheduled, where compiling stopped there.
        compiler_memory: peak bytes of this process.
    """

    devices: int
    device_kind: str
    batch_size: int
    flops: float
    needed_flops: float
    arguments: int
    memory: int
    what: str = "step"
    passes: int = 2
    peak: int | None = None
    fits: bool | None = None
    traffic: dict[str, Traffic] = dataclasses.field(default_factory=dict)
    gathers: Gathers = Gathers()
    windowed: int | None = None
    compile_seconds: float | None = None
    schedule_seconds: float | None = None
    compiler_memory: int = 0

    @property
    def chip(self) -> Chip | None:
        """Of the devices, if it is known."""
        return chip_of(self.device_kind)

    @property
    def seconds(self) -> float | None:
        """No call is faster: the products at the peak, or the arguments through the memory."""
        if self.chip is None:
            return None
        compute = self.flops / self.devices / self.chip.flops
        return max(compute, self.passes * self.arguments / self.chip.bandwidth)

    @property
    def mfu(self) -> float | None:
        """The share of the peak, of needed products alone, that no call exceeds."""
        if self.chip is None or not self.seconds:
            return None
        return self.needed_flops / self.devices / self.chip.flops / self.seconds

    def to_json(self) -> dict[str, object]:
        """What a file of it holds."""
        return {**dataclasses.asdict(self), "bound_seconds": self.seconds, "bound_mfu": self.mfu}

    def text(self) -> str:
        """A report of a few lines."""
        lines = [
            f"{self.devices} x {self.device_kind}, batch {self.batch_size} "
            f"({self.batch_size // self.devices} a device)",
            f"products and convolutions: {self.flops / 1e12:.3g} TFLOP a {self.what}, "
            f"{self.flops / self.batch_size / 1e12:.3g} TFLOP a picture, "
            f"{self.flops / self.needed_flops:.2f} times what is needed",
            f"arguments: {gib(self.arguments)} a device",
        ]
        if self.schedule_seconds is not None:
            lines.append(
                f"scheduled in {self.schedule_seconds:.0f} s with {gib(self.compiler_memory)} of "
                "memory, and not compiled further"
            )
        if self.compile_seconds is not None:
            lines.append(
                f"compiled in {self.compile_seconds:.0f} s with "
                f"{gib(self.compiler_memory)} of memory"
            )
        if self.peak is not None:
            lines.append(self._fit())
        if self.windowed is not None:
            lines.append(f"loops over slices of a kernel: {self.windowed}")
        for kind, traffic in self.traffic.items():
            line = f"{kind}: {traffic.count:,}, {traffic.bytes / 2**20:,.0f} MiB a device"
            lines.append(line + (self._gathered() if kind == "all-gather" else ""))
        if self.seconds is not None and self.chip is not None:
            rate = self.batch_size / self.seconds
            lines.append(
                f"bound: {1e3 * self.seconds:.3g} ms a {self.what}, {rate:,.3g} pictures/s, MFU "
                f"{self.mfu:.0%}; none is faster"
            )
        return "\n".join(lines)

    def _gathered(self) -> str:
        of = self.gathers
        told = f", at most {of.most} of each of {of.arguments:,} arguments"
        return told + (f", {of.computed:,} of what is computed" if of.computed else "")

    def _fit(self) -> str:
        assert self.peak is not None
        have = f"{gib(self.peak)} of {gib(self.memory)} a device"
        if self.fits:
            return f"peak memory: {have}: it fits"
        return f"peak memory: {have}: it does not fit"


def plan_ahead(config: ConfigDict, topology: str = "") -> Plan:
    """The plan of a run on devices that may not be there; it needs no weights.

    Args:
        config: of the run; what depends on the devices is set as it would be there.
        topology: a TPU slice, see :func:`topology_devices`; "" for this machine.

    Raises:
        UserError: whatever does not fit.
    """
    for name in ("pretrained", "autoencoder"):
        if config.model[name]:
            config.model[name] = str(architecture_path(config.model[name]))
    if not topology:
        return plan(config)
    if config.dtype == "auto":
        config.dtype = "bfloat16"
    return plan(config, make_mesh(**config.mesh, devices=topology_devices(topology)))


def compile_ahead(planned: Plan, quick: bool = False, schedules: Path | None = None) -> Ahead:
    """Count a plan's step and, unless ``quick``, compile it for the plan's devices.

    Nothing runs and no weights are read.

    Args:
        planned: the plan.
        quick: do not compile, or only up to the schedule.
        schedules: with ``quick``, where the compiler for TPUs writes its schedule, see
            :func:`codi_jax.parallel.scheduled.scheduled_hlo`; None to compile nothing.
    """
    device = planned.mesh.devices.flat[0]
    known = Ahead(
        what="step",
        devices=planned.mesh.size,
        device_kind=device.device_kind,
        batch_size=planned.config.batch_size,
        flops=jaxpr_flops(planned.traced.jaxpr),
        needed_flops=planned.needed_flops,
        arguments=_argument_bytes(planned),
        memory=device_memory(device),
    )
    return told_ahead(known, planned.traced, quick, schedules)


def told_ahead(
    known: Ahead, traced: jax.stages.Traced, quick: bool, schedules: Path | None
) -> Ahead:
    """``known`` and what the compiler tells of a program; see :func:`compile_ahead`."""
    if not quick:
        return _compiled(known, traced)
    return known if schedules is None else _scheduled(known, traced, schedules)


def _scheduled(known: Ahead, traced: jax.stages.Traced, schedules: Path) -> Ahead:
    """``known`` and what the schedule tells; the process must end by ``os._exit``."""
    begin = time.monotonic()
    try:
        text = scheduled_hlo(traced, schedules)
    except DoesNotFit as error:
        return dataclasses.replace(known, peak=error.needed, fits=False)
    return dataclasses.replace(
        known,
        **_sent(text),
        schedule_seconds=time.monotonic() - begin,
        compiler_memory=_own_memory(),
    )


def _sent(text: str) -> dict[str, Any]:
    """Fields of :class:`Ahead` that say what the devices send each other."""
    program = Program(text)
    return {
        "traffic": collectives(program),
        "gathers": gathers(program),
        "windowed": windowed_loops(program),
    }


def _own_memory() -> int:
    """Bytes that this process had at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _compiled(known: Ahead, traced: jax.stages.Traced) -> Ahead:
    """``known`` and what compiling tells."""
    begin = time.monotonic()
    try:
        compiled = compile_traced(traced)
    except DoesNotFit as error:
        return dataclasses.replace(known, peak=error.needed, fits=False)
    seconds = time.monotonic() - begin
    text = compiled.as_text() or ""
    peak = compiled_bytes(compiled)
    return dataclasses.replace(
        known,
        peak=peak,
        fits=peak is None or peak <= known.memory,
        **_sent(text),
        compile_seconds=seconds,
        compiler_memory=_own_memory(),
    )


def _argument_bytes(planned: Plan) -> int:
    batch = dict.fromkeys(planned.batch, batch_sharding(planned.mesh))
    return (
        bytes_a_device(planned.state, planned.state_shardings)
        + bytes_a_device(planned.frozen, planned.frozen_shardings)
        + bytes_a_device(planned.batch, batch)
    )

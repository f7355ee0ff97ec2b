"""A run's step compiled for machines that are not there: does it fit, what does it cost."""

import dataclasses
import resource
import sys
import time

from codi_jax.parallel.chips import Chip, chip_of
from codi_jax.parallel.collectives import Traffic, collectives
from codi_jax.parallel.mesh import batch_sharding
from codi_jax.parallel.sharding import bytes_a_device
from codi_jax.run.plan import Plan
from codi_jax.run.summary import gib
from codi_jax.train.flops import compiled_bytes, jaxpr_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ahead:
    """What is known of a step before it runs.

    Attributes:
        devices: how many.
        device_kind: of all of them.
        batch_size: of the global batch.
        flops: of one step, all devices together, counted from the jaxpr.
        arguments: bytes a device of parameters, averages, moments and batch.
        peak: bytes a device while the step runs; None if it was not compiled.
        traffic: collectives by kind, of one device and step.
        compile_seconds: None if it was not compiled.
        compiler_memory: peak bytes of this process.
    """

    devices: int
    device_kind: str
    batch_size: int
    flops: float
    arguments: int
    peak: int | None = None
    traffic: dict[str, Traffic] = dataclasses.field(default_factory=dict)
    compile_seconds: float | None = None
    compiler_memory: int = 0

    @property
    def chip(self) -> Chip | None:
        """Of the devices, if it is known."""
        return chip_of(self.device_kind)

    @property
    def seconds(self) -> float | None:
        """No step is faster: the products at the peak, or the state through the memory once."""
        if self.chip is None:
            return None
        compute = self.flops / self.devices / self.chip.flops
        return max(compute, 2 * self.arguments / self.chip.bandwidth)

    def to_json(self) -> dict[str, object]:
        """What a file of it holds."""
        return {**dataclasses.asdict(self), "bound_seconds": self.seconds}

    def text(self) -> str:
        """A report of a few lines."""
        lines = [
            f"{self.devices} x {self.device_kind}, batch {self.batch_size} "
            f"({self.batch_size // self.devices} a device)",
            f"products and convolutions: {self.flops / 1e12:.3g} TFLOP a step, "
            f"{self.flops / self.batch_size / 1e12:.3g} TFLOP a picture",
            f"state and batch: {gib(self.arguments)} a device",
        ]
        if self.compile_seconds is not None:
            lines.append(
                f"compiled in {self.compile_seconds:.0f} s with "
                f"{gib(self.compiler_memory)} of memory"
            )
        if self.peak is not None:
            lines.append(self._fit())
        for kind, traffic in self.traffic.items():
            lines.append(f"{kind}: {traffic.count:,}, {traffic.bytes / 2**20:,.0f} MiB a device")
        if self.seconds is not None and self.chip is not None:
            rate = self.batch_size / self.seconds
            lines.append(
                f"bound: {1e3 * self.seconds:.3g} ms a step, {rate:,.0f} pictures/s; no step is "
                "faster"
            )
        return "\n".join(lines)

    def _fit(self) -> str:
        assert self.peak is not None
        if self.chip is None:
            return f"peak memory: {gib(self.peak)} a device"
        have = f"{gib(self.peak)} of {gib(self.chip.memory)} a device"
        if self.peak <= self.chip.memory:
            return f"peak memory: {have}: it fits"
        return (
            f"peak memory: {have}: it does not fit. Set config.model.remat=True, halve "
            f"config.batch_size ({self.batch_size}) or double config.accumulation, or share the "
            "parameters over more devices by config.mesh.fsdp."
        )


def compile_ahead(plan: Plan, quick: bool = False) -> Ahead:
    """Count a plan's step and, unless ``quick``, compile it for the plan's devices.

    Nothing runs and no weights are read.
    """
    known = Ahead(
        devices=plan.mesh.size,
        device_kind=plan.mesh.devices.flat[0].device_kind,
        batch_size=plan.config.batch_size,
        flops=jaxpr_flops(plan.traced.jaxpr),
        arguments=_argument_bytes(plan),
    )
    if quick:
        return known
    begin = time.monotonic()
    compiled = plan.traced.lower().compile()
    seconds = time.monotonic() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    return dataclasses.replace(
        known,
        peak=compiled_bytes(compiled),
        traffic=collectives(compiled.as_text()),
        compile_seconds=seconds,
        compiler_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    )


def _argument_bytes(plan: Plan) -> int:
    batch = dict.fromkeys(plan.batch, batch_sharding(plan.mesh))
    return (
        bytes_a_device(plan.state, plan.state_shardings)
        + bytes_a_device(plan.frozen, plan.frozen_shardings)
        + bytes_a_device(plan.batch, batch)
    )

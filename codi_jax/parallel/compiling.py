"""How programs are compiled, also for devices that may be too small for them."""

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax

from codi_jax.parallel.chips import chip_of

#: What XLA's compiler for TPUs says of a program that does not fit.
_NEEDED = re.compile(r"\(([\d.]+)([KMG])\) exceeds available|Used ([\d.]+)([KMG]) of")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


#: By default XLA gives convolutions on CPUs to YNNPACK, where gradients of kernels take up to three
#: times as long as in Eigen.
_ON_CPUS: dict[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}
#: On CPUs full optimisation of a program that draws normal numbers takes seconds, ten times as long
#: as this, and the program is no faster.
_NOISE_ON_CPUS = {"xla_backend_optimization_level": 1}


class DoesNotFit(Exception):
    """A program that its devices have no memory for.

    Attributes:
        needed: bytes of one device, at least; None where the compiler does not say.
    """

    def __init__(self, needed: int | None) -> None:
        super().__init__(f"{needed} bytes")
        self.needed = needed


def compile_traced(traced: jax.stages.Traced) -> jax.stages.Compiled:
    """Compile for the devices that it was traced for.

    Raises:
        DoesNotFit: the compiler itself found that their memory is too small.
    """
    with memory_errors():
        return traced.lower().compile()


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises DoesNotFit where jax says that a device's memory does not suffice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(_needed(str(error))) from error


def _needed(message: str) -> int | None:
    match = _NEEDED.search(message)
    if match is None:
        return None
    number, unit = (part for part in match.groups() if part)
    return int(float(number) * _UNITS[unit])


def compiled_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of arguments, results and temporaries on one device; None where XLA does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def device_memory(device: jax.Device) -> int:
    """Bytes that a program may use on a device.

    They are what the device itself says, else its chip's, else half of this machine's: others
    use that, too.
    """
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except jax.errors.JaxRuntimeError:  # a device that is only compiled for
        limit = None
    chip = chip_of(device.device_kind)
    if limit is not None:
        return int(limit)
    if chip is not None:
        return int(chip.memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@functools.cache
def compiler_options(device: jax.Device) -> dict[str, str | bool] | None:
    """What steps and samplers are compiled with for a device; None for XLA's own choice.

    Args:
        device: one of those that run them.
    """
    if device.platform != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=_ON_CPUS)(jax.device_put(0, device))
    except jax.errors.JaxRuntimeError:  # another version of XLA, which has no such option
        return None
    return _ON_CPUS


@functools.cache
def jit_noise(function: Callable[..., Any], *static: str) -> jax.stages.Wrapped:
    """``function``, which draws random numbers, as a program of its own.

    Args:
        function: jitted once, whoever asks.
        static: names of its arguments that are static.
    """
    options = _NOISE_ON_CPUS if jax.default_backend() == "cpu" else None
    return jax.jit(function, static_argnames=static, compiler_options=options)


def compile_with_low_effort() -> None:
    """From here on XLA compiles for TPUs with the least effort that it knows."""
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    jax.config.update("jax_memory_fitting_effort", -1.0)

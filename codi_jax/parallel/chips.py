"""What accelerators can do, from their vendors' data sheets."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One device as jax counts them.

    Attributes:
        flops: dense bf16 peak, FLOP/s.
        memory: bytes of its memory.
        bandwidth: of its memory, bytes/s.
    """

    flops: float
    memory: float
    bandwidth: float


GB = 1e9
#: By a part of the device's kind. TPUs: cloud.google.com/tpu/docs, system architecture; GPUs:
#: NVIDIA's data sheets of the SXM boards.
CHIPS = {
    "TPU v4": Chip(flops=275e12, memory=32 * 2**30, bandwidth=1228 * GB),
    "TPU v5 lite": Chip(flops=197e12, memory=16 * 2**30, bandwidth=819 * GB),
    "TPU v5e": Chip(flops=197e12, memory=16 * 2**30, bandwidth=819 * GB),
    "TPU v5": Chip(flops=459e12, memory=95 * 2**30, bandwidth=2765 * GB),
    "TPU v6": Chip(flops=918e12, memory=32 * 2**30, bandwidth=1640 * GB),
    "A100": Chip(flops=312e12, memory=80 * GB, bandwidth=2039 * GB),
    "H100": Chip(flops=989e12, memory=80 * GB, bandwidth=3350 * GB),
    "H200": Chip(flops=989e12, memory=141 * GB, bandwidth=4800 * GB),
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip of ``jax.Device.device_kind``, None where it is not in the table."""
    for name, chip in CHIPS.items():
        if name in device_kind:
            return chip
    return None

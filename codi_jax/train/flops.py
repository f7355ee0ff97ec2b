"""What a compiled step costs, and how well a device is used."""

import jax

#: Dense bf16 peak of one device in FLOP/s, by a part of its kind's name (vendors' data sheets).
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v6": 918e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}


def step_flops(compiled: jax.stages.Compiled) -> float | None:
    """FLOPs of one step on one device by XLA's cost analysis, None where it gives none."""
    analysis = compiled.cost_analysis()
    return analysis.get("flops") if analysis else None


def utilisation(flops: float | None, seconds: float, device: jax.Device) -> dict[str, float]:
    """How well a device is used.

    Args:
        flops: of one step on one device.
        seconds: that one step takes.
        device: any device of the mesh.

    Returns:
        ``tflops_per_device``, and ``mfu`` (the share of the peak, in [0, 1]) where the device's
        peak is known. Empty without ``flops``.
    """
    if not flops:
        return {}
    rate = flops / seconds
    result = {"tflops_per_device": rate / 1e12}
    for name, peak in PEAK_FLOPS.items():
        if name in device.device_kind:
            result["mfu"] = rate / peak
    return result

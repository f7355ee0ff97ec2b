"""What a run will be, told before anything is made: ``main --dry_run``."""

import math

import numpy as np

from codi_jax import trees
from codi_jax.parallel.chips import chip_of
from codi_jax.parallel.sharding import bytes_a_device
from codi_jax.run.plan import Plan
from codi_jax.train.flops import jaxpr_flops

#: The share of a device's peak that a well-fed training step reaches, for estimates.
USUAL_MFU = 0.35


def summary(plan: Plan) -> str:
    """The plan in a few lines: what trains, what it takes, how long it lasts.

    The training step is traced, which takes seconds, and not compiled.

    Args:
        plan: of the run.

    Returns:
        Lines of text.
    """
    config, mesh = plan.config, plan.mesh
    flops = jaxpr_flops(plan.traced.jaxpr)
    samples = config.steps * config.batch_size
    lines = [
        f"task {plan.task.name}, method {config.method}, data {config.data.source}",
        *_parameters(plan),
        f"devices: {mesh.size} x {mesh.devices.flat[0].device_kind} "
        f"(data {mesh.shape['data']}, fsdp {mesh.shape['fsdp']}), computation in "
        f"{np.dtype(plan.dtype).name}",
        *_memory(plan),
        f"steps: {config.steps:,} of {config.batch_size} pictures of {config.data.size} px, "
        f"{samples:,} pictures in all; evaluation every {config.eval.every:,} steps, checkpoints "
        f"every {config.checkpoint.every:,}",
        f"computation: {_si(flops)}FLOP a step, {_si(flops / config.batch_size)}FLOP a picture, "
        f"{_si(flops * config.steps)}FLOP in all",
        _time(plan, flops),
    ]
    return "\n".join(lines)


def _parameters(plan: Plan) -> list[str]:
    trainable = trees.flatten(plan.state.trainable)
    parts: dict[str, list[int]] = {}
    for tree, place in ((trainable, 0), (trees.flatten(plan.frozen), 1)):
        for path, leaf in tree.items():
            parts.setdefault(path.split("/")[0], [0, 0])[place] += math.prod(leaf.shape)
    trained, frozen = (sum(counts[i] for counts in parts.values()) for i in (0, 1))
    lines = [
        f"  {part}: {sum(counts):,}" + (f", of which {counts[0]:,} train" if counts[0] else "")
        for part, counts in parts.items()
    ]
    share = trained / (trained + frozen)
    return [f"parameters: {trained + frozen:,}, of which {trained:,} train ({share:.1%})", *lines]


def _memory(plan: Plan) -> list[str]:
    state = bytes_a_device(plan.state, plan.state_shardings)
    frozen = bytes_a_device(plan.frozen, plan.frozen_shardings)
    gradients = bytes_a_device(plan.state.trainable, plan.state_shardings.trainable)
    return [
        f"memory a device: {gib(state + frozen + gradients)} and the activations: "
        f"{gib(state)} of trained parameters, averages and moments, {gib(gradients)} of "
        f"gradients, {gib(frozen)} of frozen parameters"
    ]


def _time(plan: Plan, flops: float) -> str:
    device = plan.mesh.devices.flat[0].device_kind
    chip = chip_of(device)
    if chip is None:
        return "time: unknown for this kind of device; the progress bar shows it after a few steps"
    seconds = flops * plan.config.steps / (plan.mesh.size * chip.flops * USUAL_MFU)
    return (
        f"time: about {seconds / 3600:.1f} h where {USUAL_MFU:.0%} of the peak is reached and the "
        "data keep up"
    )


def gib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.2f} GiB"


def _si(value: float) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:,.0f} E"

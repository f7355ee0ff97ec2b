"""What is told of a run before it starts."""

import math
import re

import jax

from codi_jax import trees
from codi_jax.parallel.mesh import make_mesh
from codi_jax.run.plan import plan
from codi_jax.run.summary import summary
from tests.smallest import smallest


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match, text
    return float(match[1].replace(",", ""))


def count(tree: object) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameters_steps_and_computation() -> None:
    planned = plan(smallest("pe_codi", steps=3000, batch_size=8))
    text = summary(planned)
    trainable, frozen = count(planned.state.trainable), count(planned.frozen)
    assert f"{trainable + frozen:,}, of which {trainable:,} train" in text
    assert f"unet: {count(planned.frozen['unet']):,}\n" in text
    assert "3,000 of 8 pictures of 32 px, 24,000 pictures in all" in text
    # Three times the forward pass at least, and no more than a few of them.
    assert 1e6 < number(r"([\d.]+) MFLOP a picture", text) * 1e6 < 1e9
    assert "time: unknown" in text


def test_memory_is_what_a_device_holds() -> None:
    config = smallest("codi", mesh__fsdp=4)
    config.model.unet.block_out_channels = (128,)
    alone, shared = (
        plan(config, make_mesh(data=1, fsdp=n, devices=jax.devices()[:n])) for n in (1, 4)
    )
    numbers = count(alone.state)
    state = r"([\d.]+) GiB of trained"
    assert number(state, summary(alone)) == round(4 * numbers / 2**30, 2) > 0
    assert number(state, summary(shared)) < 0.5 * number(state, summary(alone))
    assert (
        trees.flatten(shared.state.trainable).keys() == trees.flatten(alone.state.trainable).keys()
    )

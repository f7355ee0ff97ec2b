"""Seconds of two generations of the embedded models: sampling and a training step.

    python -m benchmarks.embedded --demos OLD demo --priors OLD_PRIOR prior

Each is a workdir or a checkpoint. A demo enlarges 192x128 to 768x512 pixels in --steps steps, as
`codi_jax.sample` does; a prior is what the first command (configs/sr.py) trains for --train_steps
steps. The models take turns, so that a busy machine slows all alike; the table has the medians by
the clock and of processor time, and their ratios to the first model's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.contest import Contender, alternate, report
from codi_jax.run.data import open_data
from codi_jax.run.plan import plan
from codi_jax.run.start import start
from codi_jax.sampling.sampler import Sampler
from configs import sr


def sampling(name: str, steps: int) -> Contender:
    """One picture of 768x512 by the model `name`."""
    sampler = Sampler.load(name)
    picture = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)

    def turn() -> None:
        sampler(picture, steps=steps, seed=0)

    return turn


def training(name: str) -> Contender:
    """A step of the first command from the prior `name`, data included."""
    config = sr.get_config()
    config.model.pretrained = name
    planned = plan(config)
    run = start(planned)
    stream, _ = open_data(config, planned.task)
    state = run.state

    def turn() -> None:
        nonlocal state
        batch = {key: value for key, value in next(stream).items() if key in planned.batch}
        state, metrics = run.step(state, run.frozen, batch, planned.key)
        jax.block_until_ready(metrics)

    return turn


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.embedded",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--demos", nargs="+", default=[], help="super-resolution models")
    parser.add_argument("--priors", nargs="+", default=[], help="priors")
    parser.add_argument("--steps", type=int, default=4, help="of sampling")
    parser.add_argument("--train_steps", type=int, default=3, help="of a turn")
    parser.add_argument("--repeats", type=int, default=7, help="timed turns")
    parser.add_argument("--sampling", type=Path, help="JSON file of the figures of sampling")
    parser.add_argument("--training", type=Path, help="JSON file of those of training")
    args = parser.parse_args(argv)
    if args.demos:
        figures = alternate({name: sampling(name, args.steps) for name in args.demos}, args.repeats)
        report(figures, {"program": f"{args.steps} steps to 768x512"}, 1, args.sampling)
    if args.priors:
        runs = {name: training(name) for name in args.priors}
        figures = alternate(runs, args.repeats, args.train_steps)
        pictures = sr.get_config().batch_size
        report(figures, {"program": "a step of configs/sr.py"}, pictures, args.training)


if __name__ == "__main__":
    main()

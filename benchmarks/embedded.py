"""Seconds of two generations of the embedded models: sampling and a training step.

    python -m benchmarks.embedded --demos OLD demo --priors OLD_PRIOR prior --output times.json

Each is a workdir or a checkpoint. A demo enlarges 192x128 to 768x512 pixels in --steps steps, as
`codi_jax.sample` does; a prior is what the first command (configs/sr.py) trains for --train_steps
steps. The models take turns, so that a busy machine slows all alike; printed are the medians by
the clock and of processor time, and the ratio of the last model to the first.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from codi_jax.run.data import open_data
from codi_jax.run.plan import plan
from codi_jax.run.start import start
from codi_jax.sampling.sampler import Sampler
from configs import sr

Turn = Callable[[], None]


def sampling(name: str, steps: int) -> Turn:
    """One picture of 768x512 by the model `name`."""
    sampler = Sampler.load(name)
    picture = np.random.default_rng(0).integers(0, 256, (128, 192, 3), np.uint8)

    def turn() -> None:
        sampler(picture, steps=steps, seed=0)

    return turn


def training(name: str, steps: int) -> Turn:
    """`steps` steps of the first command from the prior `name`, data included."""
    config = sr.get_config()
    config.model.pretrained = name
    planned = plan(config)
    run = start(planned)
    stream, _ = open_data(config, planned.task)
    state = run.state

    def turn() -> None:
        nonlocal state
        for _ in range(steps):
            batch = {key: value for key, value in next(stream).items() if key in planned.batch}
            state, metrics = run.step(state, run.frozen, batch, planned.key)
        jax.block_until_ready(metrics)

    return turn


def medians(turns: dict[str, Turn], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of each by the clock and of processor time; the first turn of each compiles."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for _ in range(repeats + 1):
        for name, turn in turns.items():
            clock, processor = time.perf_counter(), time.process_time()
            turn()
            taken[name].append((time.perf_counter() - clock, time.process_time() - processor))
    result = {}
    for name, pairs in taken.items():
        clocks, processors = zip(*pairs[1:], strict=True)
        result[name] = {
            "clock": statistics.median(clocks),
            "processor": statistics.median(processors),
        }
    return result


def report(what: str, rows: dict[str, dict[str, float]], share: int) -> None:
    """A line a model, in seconds of one of the `share` steps of a turn, and one of the ratios."""
    print(what)
    for name, row in rows.items():
        print(f"  {row['clock'] / share:8.3f} s  {row['processor'] / share:8.3f} CPU-s  {name}")
    first, *_, last = rows.values()
    ratios = [f"{last[key] / first[key]:.2f} ({key})" for key in first]
    print(f"  the last in units of the first: {', '.join(ratios)}", flush=True)


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
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args(argv)
    rows = {}
    if args.demos:
        turns = {name: sampling(name, args.steps) for name in args.demos}
        rows["sampling"] = medians(turns, args.repeats)
        report(f"{args.steps} steps to 768x512", rows["sampling"], 1)
    if args.priors:
        turns = {name: training(name, args.train_steps) for name in args.priors}
        rows["training"] = medians(turns, args.repeats)
        report("a training step of configs/sr.py", rows["training"], args.train_steps)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

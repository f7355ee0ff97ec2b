"""Images per second that the training data pipeline gives, and the cores that a device needs.

    python -m benchmarks.data --output data.json
    python -m benchmarks.data --configs sr prior --source 'shards/*.array_record' --workers 0 8 16

For each config: images/s of one core (images by seconds of processor time, no workers) and over
worker processes (by the clock, when all have started). Without --source the bundled photos are
prepared first, as JPEG records of 640 px. --feed says how many images/s a device trains on; the
defaults are upper bounds by arithmetic, no measurements: 2.65 TFLOP an image (forward and backward
of Stable Diffusion 2.1's U-Net at 512 px, by XLA's count) at 40% of the bfloat16 peak (8 x 197
TFLOP/s on a TPU v5e-8, 989 on an H200). Give the rates of your own run, `images_per_s` in its
metrics.jsonl.
"""

import argparse
import importlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codi_jax.builder import build_data
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.data.sources import make_source

FEED = {"v5e-8": 238.0, "H200": 149.0}


@contextmanager
def records(source: str | None, side: int) -> Iterator[str]:
    """The source, or shards of the bundled photos cut into squares of `side`."""
    if source is not None:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(crop=side, image_format="jpeg", near_duplicates=-1)
        prepare(make_source("skimage", "train"), folder, config, label="skimage")
        yield f"{folder}/*.array_record"


def measure(config: Any, workers: int, seconds: float) -> dict[str, float]:
    """Images/s by the clock and, without workers, by this process's processor time."""
    config.data.num_workers = workers
    data, _ = build_data(config)
    for _ in range(2 * max(1, workers)):
        next(data)  # all workers have started
    images, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        next(data)
        images += config.batch_size
    found = {"images_per_second": images / (time.perf_counter() - start)}
    if not workers:
        found["images_per_core_second"] = images / (time.process_time() - cpu)
    data.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configs", nargs="+", default=["sr", "prior"], help="of configs/")
    parser.add_argument("--source", help="as config.data.source; else the bundled photos")
    parser.add_argument("--size", type=int, default=512, help="side of the crops")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--feed", nargs="+", help="NAME=IMAGES_PER_SECOND of a device")
    parser.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    pairs = [pair.rpartition("=") for pair in args.feed or ()]
    feed = {name: float(rate) for name, _, rate in pairs} or FEED

    report: dict[str, Any] = {"cores": os.cpu_count(), "size": args.size, "feed": feed}
    with records(args.source, args.size + 128) as source:
        for name in args.configs:
            config = importlib.import_module(f"configs.{name}").get_config()
            config.data.source = config.data.eval_source = source
            config.data.size, config.batch_size = args.size, args.batch_size
            config.eval.count, config.eval.size = 1, args.size
            rates = {str(w): measure(config, w, args.seconds) for w in sorted({0, *args.workers})}
            core = rates["0"]["images_per_core_second"]
            needed = {device: math.ceil(rate / core) for device, rate in feed.items()}
            report[name] = {"workers": rates, "cores_needed": needed}
            print(f"{name}, {args.size} px: {core:.1f} images/s of one core")
            for workers, rate in rates.items():
                print(f"  {workers:>3s} workers  {rate['images_per_second']:8.1f} images/s")
            for device, cores in needed.items():
                print(f"  {cores:3d} cores feed {device} at {feed[device]:.0f} images/s")
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

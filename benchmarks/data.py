"""Images per second that the training data pipeline gives, and the cores that a device needs.

    python -m benchmarks.data --output data.json
    python -m benchmarks.data --configs sr depth --source 'shards/*.array_record' --workers 0 8 16
    python -m benchmarks.data --cache --configs sr --source PHOTOS --size 128 --workers 0 2

For each config and number of worker processes: images/s by the clock, which needs a machine that
is idle, and images/s of one core, by the processor time of all processes together; the smallest of
these says how many cores a device needs. Without --source the bundled photos are prepared first,
as JPEG records of 640 px. --feed says how many images/s a device trains on; the
defaults are assumed, not measured: 2.65 TFLOP an image (about the forward and backward pass
of Stable Diffusion 2.1's U-Net at 512 px) at 40% of the bfloat16 peak (8 x 197
TFLOP/s on a TPU v5e-8, 989 on an H200). Give the rates of your own run, `images_per_s` in its
metrics.jsonl.

--cache compares `config.data.cache`: off, memory and disk take turns, with a cache that holds all
pictures, and the medians of the turns are printed; also what filling it cost, and the memory of all
processes together (each shared page once), in which a cache in memory is not.
"""

import argparse
import importlib
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.data.scenes import render
from codi_jax.data.sources import CachedSource, Source, cached, make_source
from codi_jax.parallel.platform import cache_folder
from codi_jax.run.config import build_task
from codi_jax.run.data import open_data

FEED = {"v5e-8": 238.0, "H200": 149.0}


class _Scenes:
    """Rooms with a depth column, which the bundled photos lack."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, depth = render(np.random.default_rng(index), self._side)
        return {"image": image, "depth": depth, "text": "", "name": str(index)}


@contextmanager
def records(source: str | None, side: int, task: str) -> Iterator[str]:
    """The source, or shards of the bundled photos (for depth: of rooms) in squares of `side`."""
    if source is not None:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        config = PrepareConfig(crop=side, image_format="jpeg", near_duplicates=-1)
        photos = _Scenes(side) if task == "depth" else make_source("skimage", "train")
        prepare(photos, folder, config, label="benchmark")
        yield f"{folder}/*.array_record"


def processor_seconds() -> float:
    """Of this process and of its worker processes (Linux)."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, after the name
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(config: Any, workers: int, seconds: float) -> dict[str, float]:
    """Images/s by the clock, and by processor time: that of one core."""
    config.data.num_workers = workers
    data, _ = open_data(config, build_task(config))
    for _ in range(4 * max(1, workers)):
        next(data)  # all workers have started, and filled their buffers
    images, start, cpu = 0, time.perf_counter(), processor_seconds()
    while time.perf_counter() - start < seconds:
        next(data)
        images += config.batch_size
    found = {
        "images_per_second": images / (time.perf_counter() - start),
        "images_per_core_second": images / (processor_seconds() - cpu),
        "memory_bytes": memory_bytes(),
    }
    data.close()
    return found


def memory_bytes() -> int:
    """Of this process and of its worker processes, shared pages counted once (Linux)."""
    total = 0
    for pid in ("self", *(child.pid for child in multiprocessing.active_children())):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
    return total


def fill(config: Any, mode: str) -> tuple[Source, dict[str, float]]:
    """A cache that holds the source, in use while what is returned lives; and what it cost."""
    source = make_source(config.data.source, "train")
    image = source[0]["image"].nbytes
    kept = cached(
        source,
        mode,
        label=config.data.source,
        max_gb=config.data.cache_gb,
        reads=0,
        image_bytes=image,
        disk=cache_folder("decoded"),
    )
    start = time.process_time()
    for index in range(len(kept)):
        _ = kept[index]
    seconds = time.process_time() - start
    if not isinstance(kept, CachedSource):
        raise SystemExit(f"{config.data.source} cannot be cached.")
    held = kept.folder.counts()
    return kept, {
        "images": held.images,
        "of": len(source),
        "bytes": held.bytes,
        "core_ms_an_image": 1000 * seconds / len(source),
    }


def compare_caches(config: Any, workers: Sequence[int], seconds: float, turns: int) -> Any:
    """Measurements by mode and number of workers, medians; in `filled` what the caches hold."""
    modes = ("off", "memory", "disk")
    found: dict[str, Any] = {}
    # A thread that read ahead may still write.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # the user's own is left alone
        filled = {mode: fill(config, mode) for mode in modes[1:]}
        for number in workers:
            rates: dict[str, list[dict[str, float]]] = {mode: [] for mode in modes}
            for _ in range(turns):
                for mode in modes:
                    config.data.cache = mode
                    rates[mode].append(measure(config, number, seconds))
            found[str(number)] = {
                mode: {key: statistics.median(turn[key] for turn in taken) for key in taken[0]}
                for mode, taken in rates.items()
            }
        found["filled"] = {mode: held for mode, (_, held) in filled.items()}
    return found


def print_caches(name: str, size: int, found: dict[str, Any]) -> None:
    """A table for people."""
    filled = found["filled"]
    for mode, held in filled.items():
        print(
            f"{name}, {size} px, cache in {mode}: {held['images']} of {held['of']} pictures, "
            f"{held['bytes'] / 1e9:.2f} GB, "
            f"{held['core_ms_an_image']:.2f} ms of a core to fill, each"
        )
    for workers, modes in found.items():
        for mode, rate in modes.items() if modes is not filled else ():
            gain = rate["images_per_core_second"] / modes["off"]["images_per_core_second"]
            print(
                f"  {workers:>3s} workers, {mode:6s} {rate['images_per_second']:8.1f} images/s, "
                f"{rate['images_per_core_second']:8.1f} a core ({gain:.2f} times), "
                f"{rate['memory_bytes'] / 1e6:6.0f} MB"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--configs",
        nargs="+",
        default=["sr", "inpaint", "canny", "depth", "edit", "prior"],
        help="of configs/",
    )
    parser.add_argument("--source", help="as config.data.source; else the bundled photos")
    parser.add_argument("--size", type=int, default=512, help="side of the crops")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--feed", nargs="+", help="NAME=IMAGES_PER_SECOND of a device")
    parser.add_argument("--cache", action="store_true", help="compare config.data.cache")
    parser.add_argument("--cache-gb", type=float, default=2.0, help="its bound")
    parser.add_argument("--turns", type=int, default=3, help="of each cache")
    parser.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    pairs = [pair.rpartition("=") for pair in args.feed or ()]
    feed = {name: float(rate) for name, _, rate in pairs} or FEED

    report: dict[str, Any] = {"cores": os.cpu_count(), "size": args.size, "feed": feed}
    for name in args.configs:
        config = importlib.import_module(f"configs.{name}").get_config()
        config.data.size, config.batch_size = args.size, args.batch_size
        config.eval.count, config.eval.size = 1, args.size
        with records(args.source, args.size + 128, config.task) as source:
            config.data.source = config.data.eval_source = source
            config.data.cache, config.data.cache_gb = "off", args.cache_gb
            if args.cache:
                found = compare_caches(config, args.workers, args.seconds, args.turns)
                report[name] = found
                print_caches(name, args.size, found)
                continue
            rates = {str(w): measure(config, w, args.seconds) for w in args.workers}
        core = min(rate["images_per_core_second"] for rate in rates.values())
        needed = {device: math.ceil(rate / core) for device, rate in feed.items()}
        report[name] = {"workers": rates, "cores_needed": needed}
        print(f"{name}, {args.size} px: {core:.1f} images/s of one core")
        for workers, rate in rates.items():
            print(
                f"  {workers:>3s} workers  {rate['images_per_second']:8.1f} images/s, "
                f"{rate['images_per_core_second']:8.1f} a core"
            )
        for device, cores in needed.items():
            print(f"  {cores:3d} cores feed {device} at {feed[device]:.0f} images/s")
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

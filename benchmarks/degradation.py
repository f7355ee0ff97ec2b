"""Speed of the super-resolution degradation on one core.

    python -m benchmarks.degradation --output degradation.json

Prints images per second at each size of the ground truth, the median over repeats, and where
the time goes, one operation at a time with the parameters that training draws. One process,
OpenCV on one thread. A minute on a laptop; measured: about 165 images/s at 256 pixels and
55 at 512.
"""

import argparse
import functools
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from codi_jax.data import degradation, images, kernels
from codi_jax.data.degradation import Bicubic, SecondOrder
from codi_jax.data.sources import SkimageSource


def crops(size: int, count: int) -> list[np.ndarray]:
    """float32 [size, size, 3] in [0, 1]: crops of the bundled photos."""
    source, rng = SkimageSource("train"), np.random.default_rng(0)
    photos = [source[i]["image"] for i in range(len(source))]
    photos = [p for p in photos if min(p.shape[:2]) >= size] or [
        images.resize(p, (size, size), "bicubic") for p in photos
    ]
    result = []
    for i in range(count):
        photo = photos[i % len(photos)]
        top = rng.integers(photo.shape[0] - size + 1)
        left = rng.integers(photo.shape[1] - size + 1)
        result.append(images.to_float(photo[top : top + size, left : left + size]))
    return result


def images_per_second(
    degrade: Callable[[np.ndarray, np.random.Generator], Any],
    inputs: list[np.ndarray],
    repeats: int,
) -> float:
    """Median over repeats; the random numbers are the same in each."""
    rates = []
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        for i, hr in enumerate(inputs):
            degrade(hr, np.random.default_rng(i))
        if repeat:  # the first fills caches
            rates.append(len(inputs) / (time.perf_counter() - start))
    return median(rates)


def breakdown(inputs: list[np.ndarray], repeats: int) -> dict[str, float]:
    """Mean milliseconds an image in each operation, all its uses in an image together."""
    spent: dict[str, float] = {}
    wrapped = {
        "blur": (degradation, "blur"),
        "make kernel (in blur)": (kernels, "make_kernel"),
        "resize": (images, "resize"),
        "noise": (degradation, "add_noise"),
        "JPEG": (degradation, "jpeg"),
        "draw parameters": (degradation, "sample_parameters"),
    }
    originals = {label: getattr(module, name) for label, (module, name) in wrapped.items()}

    def timed(label: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = originals[label](*args, **kwargs)
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - start
            return result

        return call

    for label, (module, name) in wrapped.items():
        setattr(module, name, timed(label))
    try:
        start = time.perf_counter()
        for _ in range(repeats):
            for i, hr in enumerate(inputs):
                degradation.degrade(hr, np.random.default_rng(i), SecondOrder())
        total = time.perf_counter() - start
    finally:
        for label, (module, name) in wrapped.items():
            setattr(module, name, originals[label])
    spent["everything else"] = total - sum(
        seconds for label, seconds in spent.items() if not label.startswith("make kernel")
    )
    return {k: 1e3 * v / (repeats * len(inputs)) for k, v in spent.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--images", type=int, default=100, help="images in a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()

    cv2.setNumThreads(0)
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "images": args.images,
        "repeats": args.repeats,
        "sizes": {},
    }
    for size in args.sizes:
        inputs = crops(size, args.images)
        rates = {
            name: images_per_second(
                functools.partial(degradation.degrade, config=config), inputs, args.repeats
            )
            for name, config in (("realesrgan", SecondOrder()), ("bicubic", Bicubic()))
        }
        parts = breakdown(inputs, args.repeats)
        report["sizes"][size] = {"images_per_second": rates, "milliseconds": parts}
        print(f"ground truth {size}x{size}, one core")
        for name, rate in rates.items():
            print(f"  {name:24s}{rate:10.1f} images/s{1e3 / rate:10.2f} ms")
        for label, milliseconds in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"    {label:22s}{'':19s}{milliseconds:10.2f} ms")
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

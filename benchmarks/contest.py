"""Several programs timed in turns, so that what else a machine does disturbs all alike.

    python -m benchmarks.contest step.json sampling.json

prints the tables of finished contests.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from codi_jax.model import AutoencoderModel
from codi_jax.run.config import ConfigDict
from codi_jax.typing import Params
from configs import sr

#: Runs its program once, to the end of all that it started.
Contender = Callable[[], object]


def random_params(model: AutoencoderModel) -> Params:
    """Random parameters of a model, drawn by numpy: compiling their initialisers takes long."""
    draw = np.random.default_rng(0)

    def one(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, noise = path[-1].key, draw.standard_normal(leaf.shape, np.float32)
        if name == "kernel":
            return jax.numpy.asarray(noise / np.sqrt(np.prod(leaf.shape[:-1])), leaf.dtype)
        return jax.numpy.asarray((name == "scale") + 0.01 * noise, leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, model.shapes)


def tiny_config(method: str) -> ConfigDict:
    """Super-resolution with small random networks, which PyTorch diffusers can build, too.

    It knows no attention blocks without text, so there is none.

    Args:
        method: of ``configs/methods.py``.
    """
    config = sr.get_config(f"tiny,{method}")
    unet = config.model.unet
    unet.down_block_types, unet.up_block_types = ("DownBlock2D",), ("UpBlock2D",)
    unet.mid_block_type, unet.block_out_channels = "UNetMidBlock2D", (16,)
    return config


def alternate(
    contenders: Mapping[str, Contender], rounds: int, calls: int = 1
) -> dict[str, dict[str, float]]:
    """Run the contenders in turns, each once before it counts.

    Args:
        contenders: by name.
        rounds: turns of each.
        calls: of a turn.

    Returns:
        By name the medians of one call (none without rounds): "seconds" by the clock, and
        "cpu_seconds" of all threads of this process, which other work on the machine disturbs less.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for name, run in contenders.items():
        begin = time.perf_counter()
        run()
        print(f"{name}: first call {time.perf_counter() - begin:.1f} s", flush=True)
    for _ in range(rounds):
        for name, run in contenders.items():
            begin, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls):
                run()
            taken = time.perf_counter() - begin, time.process_time() - cpu
            times[name].append((taken[0] / calls, taken[1] / calls))
            print(f"{name}: {taken[0] / calls:.4f} s, CPU {taken[1] / calls:.4f} s", flush=True)
    return {
        name: {
            "seconds": median(seconds for seconds, _ in taken),
            "cpu_seconds": median(cpu for _, cpu in taken),
        }
        for name, taken in times.items()
        if taken
    }


def parser(text: str | None) -> argparse.ArgumentParser:
    """The flags that contests with PyTorch have in common.

    Args:
        text: what the command does.
    """
    made = argparse.ArgumentParser(description=text)
    made.add_argument("--size", choices=("tiny", "embedded", "sd21"), default="embedded")
    made.add_argument("--batch", type=int, help="pictures at a time")
    made.add_argument("--rounds", type=int, default=9, help="turns of each; 0 only compiles")
    made.add_argument("--compile", action="store_true", help="torch.compile, too")
    made.add_argument("--output", type=Path, help="JSON file of the figures")
    return made


def report(
    figures: Mapping[str, dict[str, float]],
    about: Mapping[str, object],
    pictures: int,
    output: Path | None,
) -> None:
    """Print a table, and write it as a JSON file; nothing without figures.

    Args:
        figures: of :func:`alternate`.
        about: what was run; the device is added.
        pictures: of one call.
        output: where the file goes; None for no file.
    """
    if not figures:
        return
    device = jax.devices()[0]
    about = {**about, "device": f"{device.device_kind} ({os.cpu_count()} cores)"}
    about |= {"pictures": pictures, "python": platform.python_version(), "jax": jax.__version__}
    result = {"about": about, "figures": figures}
    print(table(result))
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n")


def table(result: Mapping[str, Any]) -> str:
    """A contest in Markdown; the first contender is 1."""
    about, figures = result["about"], result["figures"]
    first = next(iter(figures.values()))
    lines = [
        ", ".join(f"{key} {value}" for key, value in about.items()),
        "",
        "| program | ms | images/s | CPU ms | time, of the first | CPU, of the first | MFU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, taken in figures.items():
        seconds, cpu = taken["seconds"], taken["cpu_seconds"]
        mfu = f"{taken['mfu']:.1%}" if "mfu" in taken else ""
        lines.append(
            f"| {name} | {1e3 * seconds:.1f} | {about['pictures'] / seconds:.2f} | "
            f"{1e3 * cpu:.0f} | {seconds / first['seconds']:.2f} | "
            f"{cpu / first['cpu_seconds']:.2f} | {mfu} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(table(json.loads(Path(name).read_text(encoding="utf-8"))))

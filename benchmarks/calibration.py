"""Our DISTS and NIQE beside other people's programs: the table of docs/metrics.md.

    python -m benchmarks.calibration --weights ~/.cache/codi_jax

Needs torch, and without what they depend on (`pip install --no-deps`) the packages DISTS-pytorch
0.1, basicsr 1.4.2 and pyiqa 0.1.16. Their programs are run unchanged; what they import beside, and
do not use here, is stood in for: torchvision's VGG-16 with the weights that ours reads, the names
that newer SciPy no longer has, and the packages' own `__init__` files, which import dozens more.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.ndimage
import torch
from safetensors.torch import load_file
from scipy import ndimage
from skimage import data
from torch import nn

from codi_jax.checkpoint.files import open_tensors
from codi_jax.evals import niqe
from codi_jax.evals.perceptual import Dists
from codi_jax.evals.weights import find_weights


def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Photos, and what was done to them, by name; the tests have the same.

    None has flat areas: there NIQE's programs disagree, see docs/metrics.md.
    """
    motorcycle = data.stereo_motorcycle()[0][100:292, 200:488]
    chelsea = data.chelsea()[50:242, 60:348]
    coffee = data.coffee()[100:292, 200:488]
    noise = np.random.default_rng(0).normal(0, 15, chelsea.shape)
    return {
        "motorcycle, blurred": (ndimage.gaussian_filter(motorcycle, (1.5, 1.5, 0)), motorcycle),
        "chelsea, noisy": (np.clip(chelsea + noise, 0, 255).astype(np.uint8), chelsea),
        "coffee, shifted": (np.roll(coffee, (3, 5), (0, 1)), coffee),
    }


def stand_in(name: str, folder: Path | None = None, **attributes: Any) -> types.ModuleType:
    """A module of that name, or a package whose `__init__` is not run."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    if folder is not None:
        module.__path__ = [str(folder)]
    sys.modules[name] = module
    return module


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, f"pip install --no-deps {name}"
    return Path(spec.origin).parent


def their_dists(weights: Path) -> Any:
    """DISTS-pytorch's network."""
    layers: list[nn.Module] = []
    width = 3
    for n in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(width, n, 3, padding=1), nn.ReLU()] if n else [nn.MaxPool2d(2)]
        width = n or width
    vgg = nn.Module()
    vgg.features = nn.Sequential(*layers)
    vgg.load_state_dict(load_file(find_weights("vgg", weights)))
    models = types.SimpleNamespace(vgg16=lambda pretrained: vgg)
    stand_in("torchvision", models=models, transforms=None)
    return importlib.import_module("DISTS_pytorch.DISTS_pt").DISTS()


def basicsr_niqe() -> Callable[[np.ndarray, str], float]:
    """BasicSR's NIQE of an RGB picture, or of a grey one."""
    folder = package("basicsr")
    stand_in("basicsr", folder)
    stand_in("basicsr.metrics", folder / "metrics")
    utils = stand_in("basicsr.utils", folder / "utils")
    utils.__dict__["bgr2ycbcr"] = importlib.import_module("basicsr.utils.color_util").bgr2ycbcr
    stand_in("scipy.ndimage.filters", convolve=scipy.ndimage.convolve)
    program = importlib.import_module("basicsr.metrics.niqe").calculate_niqe
    return lambda image, order: program(image[..., ::-1] if image.ndim == 3 else image, 0, order)


def pyiqa_niqe(folder: Path) -> Any:
    """pyiqa's NIQE with the parameters that ours reads, which it would download."""
    root = package("pyiqa")
    for name in ("pyiqa", "pyiqa.archs", "pyiqa.utils"):
        stand_in(name, root.joinpath(*name.split(".")[1:]))
    stand_in("pyiqa.archs.arch_util", get_url_from_name=lambda name: name)
    stand_in("pyiqa.utils.download_util", load_file_from_url=None)
    stand_in("pyiqa.archs.fsim_arch", _construct_filters=None)
    with open_tensors(niqe.NATURAL) as file:
        named = {"mu_prisparam": file.read("mean"), "cov_prisparam": file.read("covariance")}
    scipy.io.savemat(folder / "natural.mat", named)
    arch = importlib.import_module("pyiqa.archs.niqe_arch")
    return arch.NIQE(pretrained_model_path=str(folder / "natural.mat"))


def tensor(image: np.ndarray) -> torch.Tensor:
    """[1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", type=Path, default=Path("~/.cache/codi_jax"))
    weights = parser.parse_args().weights.expanduser()
    ours, theirs = Dists(weights), their_dists(weights)
    with tempfile.TemporaryDirectory() as folder:
        with_yiq, matlab = pyiqa_niqe(Path(folder)), basicsr_niqe()
    version = {name: importlib.metadata.version(name) for name in ("pyiqa", "basicsr")}
    print("| metric | pictures | ours | theirs | program | difference |\n|---|---|---|---|---|---|")

    def line(metric: str, name: str, our: float, their: float, program: str) -> None:
        print(f"| `{metric}` | {name} | {our:.5f} | {their:.5f} | {program} | {our - their:+.0e} |")

    for name, (changed, photo) in pictures().items():
        pair = [image[:96, :96] for image in (changed, photo)]
        with torch.no_grad():
            their = float(theirs(*map(tensor, pair)))
        line(
            "dists", name, float(ours(*([image] for image in pair))[0]), their, "DISTS-pytorch 0.1"
        )
    photos = {name.split(",")[0]: photo for name, (_, photo) in pictures().items()}
    for name, photo in photos.items():
        their, our = matlab(photo @ niqe.GREY, "HW"), niqe.niqe(photo)
        line("niqe", name, our, their, f"basicsr {version['basicsr']}, of MATLAB's grey")
        line("niqe", name, our, float(with_yiq(tensor(photo))), f"pyiqa {version['pyiqa']}")
    for name, photo in photos.items():
        line(
            "niqe_y",
            name,
            niqe.niqe_y(photo),
            matlab(photo, "HWC"),
            f"basicsr {version['basicsr']}",
        )


if __name__ == "__main__":
    main()

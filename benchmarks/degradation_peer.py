"""Speed of the super-resolution degradation beside Real-ESRGAN's own code, on one core.

    python -m benchmarks.degradation_peer --output peer.json

Needs the packages realesrgan 0.3.0, basicsr 1.4.2 and torch in the environment; basicsr also
imports a torchvision that still has `transforms.functional_tensor` (up to 0.16). Theirs is what
its training runs for each image: the kernels of `RealESRGANDataset.__getitem__`, in numpy, and
`RealESRGANModel.feed_data`, in PyTorch, without sharpening and without its queue, on images that
are decoded already; ours is `degradation.degrade`. Both take the numbers of the published x4
training. One thread each, in turns, seconds of processor time, so that other work on the machine
disturbs little.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils import DiffJPEG
from basicsr.utils.img_process_util import filter2D
from realesrgan.data import realesrgan_dataset
from realesrgan.models import realesrgan_model

from benchmarks.degradation import crops
from codi_jax.data import degradation
from codi_jax.data.degradation import SecondOrder

_KERNELS = {
    "kernel_list": ["iso", "aniso", "generalized_iso", "generalized_aniso"]
    + ["plateau_iso", "plateau_aniso"],
    "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "blur_kernel_size": 21,
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "sinc_prob": 0.1,
}
DATASET = {
    **_KERNELS,
    **{f"{key}2": value for key, value in _KERNELS.items()},
    "blur_sigma": [0.2, 3],
    "blur_sigma2": [0.2, 1.5],
    "final_sinc_prob": 0.8,
    "use_hflip": False,
    "use_rot": False,
}
MODEL = {
    "scale": 4,
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
}


class Peer:
    """Real-ESRGAN's degradation of a batch."""

    def __init__(self, size: int, batch_size: int, folder: Path) -> None:
        (folder / "names.txt").write_text("a.png\n")
        (folder / "a.png").write_bytes(b"not read")
        options = {
            "io_backend": {"type": "disk"},
            "dataroot_gt": str(folder),
            "meta_info": str(folder / "names.txt"),
        }
        self._dataset = realesrgan_dataset.RealESRGANDataset({**DATASET, **options})
        picture = np.zeros((400, 400, 3), np.float32)  # the size that it would crop or pad to
        realesrgan_dataset.imfrombytes = lambda *_, **__: picture
        # Newer PyTorch keeps the layout of what it resizes; basicsr's view() needs it contiguous.
        realesrgan_model.filter2D = lambda image, kernel: filter2D(image.contiguous(), kernel)
        model = realesrgan_model.RealESRGANModel
        self._model = model.__new__(model)  # without its networks
        self._model.opt = {**MODEL, "gt_size": size}
        self._model.device, self._model.is_train = torch.device("cpu"), True
        self._model.jpeger = DiffJPEG(differentiable=False)
        self._model.usm_sharpener = lambda image: image
        self._model._dequeue_and_enqueue = lambda: None
        self._batch_size = batch_size

    def __call__(self, inputs: list[np.ndarray]) -> None:
        """Degrade the images, batch by batch."""
        for start in range(0, len(inputs), self._batch_size):
            batch = inputs[start : start + self._batch_size]
            drawn = [self._dataset[0] for _ in batch]
            data = {
                key: torch.stack([one[key] for one in drawn])
                for key in ("kernel1", "kernel2", "sinc_kernel")
            }
            data["gt"] = torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).copy())
            self._model.feed_data(data)


def ours(inputs: list[np.ndarray]) -> None:
    """This package's degradation, one image after another."""
    for i, image in enumerate(inputs):
        degradation.degrade(image, np.random.default_rng(i), SecondOrder())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--images", type=int, default=48, help="images in a repeat")
    parser.add_argument("--batch-size", type=int, default=12, help="of Real-ESRGAN's code")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for size in args.sizes:
        inputs = crops(size, args.images)
        with tempfile.TemporaryDirectory() as folder:
            peer = Peer(size, args.batch_size, Path(folder))
            sides: dict[str, Callable[[list[np.ndarray]], None]] = {"ours": ours, "peer": peer}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for repeat in range(args.repeats + 1):
                for name, run in sides.items():
                    start = time.process_time()
                    run(inputs)
                    if repeat:  # the first fills caches
                        seconds[name].append(time.process_time() - start)
        rates = {name: args.images / median(values) for name, values in seconds.items()}
        report[str(size)] = {**rates, "ratio": rates["ours"] / rates["peer"], "seconds": seconds}
        print(
            f"{size}x{size}: ours {rates['ours']:.1f}, Real-ESRGAN's {rates['peer']:.1f} images/s "
            f"of one core, {rates['ours'] / rates['peer']:.1f} times"
        )
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

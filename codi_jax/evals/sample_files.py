"""Sampled images as files: made once, found again when an evaluation is started anew.

In a folder are ``manifest.json`` (what the images were made from), ``input/``, ``reference/``,
``bicubic/`` and for each number of steps one folder of results, ``4/00000.png`` and so on. Image
n is a function of the manifest and n alone, whatever the batches, devices and processes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.data.images import resize, save_image
from codi_jax.evals.batches import Devices, buckets
from codi_jax.evals.image_files import ImageFiles
from codi_jax.typing import Array, UserError

MANIFEST = "manifest.json"
INPUT, REFERENCE, BICUBIC = "input", "reference", "bicubic"


def check_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, or hold it against the one that is there.

    Raises:
        UserError: the folder holds images that were made otherwise.
    """
    path = folder / MANIFEST
    if path.exists():
        old = load_json(path)
        keys = sorted({*old, *manifest})
        differing = [
            f"{key} ({old.get(key)!r} there, {manifest.get(key)!r} now)"
            for key in keys
            if old.get(key) != manifest.get(key)
        ]
        if differing:
            raise UserError(
                f"{folder} holds images of another evaluation: {'; '.join(differing[:3])}. Use "
                "another --output, or remove that folder."
            )
    elif jax.process_index() == 0:
        save_json(path, dict(manifest))


def image_name(index: int) -> str:
    return f"{index:05d}.png"


def files(folder: Path, column: str, count: int) -> ImageFiles:
    """The images of one column, in order."""
    return ImageFiles(folder / column, [image_name(i) for i in range(count)])


class _Work(NamedTuple):
    number: int
    lr: np.ndarray
    missing: tuple[int, ...]  # numbers of steps


def write_samples(
    folder: Path,
    examples: Any,
    indices: Sequence[int],
    steps: Sequence[int],
    sample: Callable[[Array, Array, int], Array],
    devices: Devices,
) -> None:
    """Make the images that are not there yet.

    Args:
        folder: see the module.
        examples: item n is {"image": uint8 [H, W, 3], "lr": uint8 [h, w, 3], ...}.
        indices: this process's share.
        steps: numbers of sampling steps.
        sample: (lr [B, h, w, 3], indices [B], steps) -> uint8 [B, H, W, 3].
        devices: how batches are made and spread.
    """

    def missing(index: int) -> tuple[int, ...]:
        return tuple(n for n in steps if not (folder / str(n) / image_name(index)).exists())

    todo = [index for index in indices if missing(index)]

    def work() -> Any:
        for index in todo:
            example, name = examples[index], image_name(index)
            image, lr = example["image"], example["lr"]
            save_image(folder / INPUT / name, lr)
            save_image(folder / REFERENCE / name, image)
            save_image(folder / BICUBIC / name, resize(lr, image.shape[:2], "bicubic"))
            yield _Work(index, lr, missing(index))

    with tqdm(total=len(indices), initial=len(indices) - len(todo), unit="image") as bar:
        for batch in buckets(work(), lambda w: (*w.lr.shape, *w.missing), devices.batch_size):
            lr = devices.spread([w.lr for w in batch])
            order = devices.spread([np.asarray(w.number, np.int32) for w in batch])
            for n in batch[0].missing:
                images = np.asarray(sample(lr, order, n))
                for w, image in zip(batch, images, strict=False):  # the batch is filled up
                    save_image(folder / str(n) / image_name(w.number), image)
            bar.update(len(batch))

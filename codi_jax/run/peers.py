"""Other programs in the study: folders of their results for the study's own inputs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from codi_jax.data.images import load_image, save_image
from codi_jax.data.pipeline import Batch
from codi_jax.sampling import image_files
from codi_jax.sampling.held_out_files import REFERENCE, image_name
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError


class Peer(TypedDict):
    """One line of ``config.peers``.

    Attributes:
        name: in the tables.
        images: the folder of its results, named as the inputs are.
        seconds: that one picture took, if known.
        parameters: of its networks, if known.
    """

    name: str
    images: str
    seconds: NotRequired[float]
    parameters: NotRequired[int]


def check_peers(lines: Sequence[Mapping[str, object]], taken: Collection[str]) -> list[Peer]:
    """The lines of ``config.peers``.

    Args:
        lines: as they stand there.
        taken: names that other rows of the table have.

    Raises:
        UserError: a line with other keys or values, or a name that is taken.
    """
    peers: list[Peer] = []
    for line in lines:
        seconds, parameters = line.get("seconds", 0.0), line.get("parameters", 0)
        if not (
            {"name", "images"} <= line.keys() <= Peer.__annotations__.keys()
            and isinstance(line["name"], str)
            and isinstance(line["images"], str)
            and isinstance(seconds, int | float)
            and isinstance(parameters, int)
            and min(seconds, parameters) >= 0
        ):
            raise UserError(
                f"config.peers: {dict(line)} is no line of it; give "
                '{"name": "StableSR", "images": FOLDER}, and if they are known "seconds" of one '
                'picture and the number of "parameters".'
            )
        if line["name"] in {*taken, *(peer["name"] for peer in peers)}:
            raise UserError(
                f"config.peers: {line['name']} is the name of another row; give each its own."
            )
        peers.append(Peer(**line))  # type: ignore[typeddict-item]  # as has just been checked
    return peers


def write_inputs(folder: Path, task: Task, batch: Batch) -> None:
    """Write the task's inputs, and the ground truth, for other programs.

    Args:
        folder: gets a folder for each, in which picture n is ``0000n.png``.
        task: names the inputs.
        batch: the pictures.

    Raises:
        UserError: the folder holds other pictures.
    """
    for name, pictures in {**task.inputs(batch), REFERENCE: batch["image"]}.items():
        for i, picture in enumerate(pictures):
            path = folder / name / image_name(i)
            if not path.exists():
                save_image(path, picture)
            elif not np.array_equal(load_image(path), picture):
                raise UserError(
                    f"{path} is not what this study reads: its data or settings have changed. Use "
                    f"another --workdir, or remove {folder} and make the other programs' results "
                    "anew."
                )


def results_of(peers: Sequence[Peer], folder: Path) -> dict[str, ImageFiles]:
    """The pictures of each peer by its name, in the order of the inputs.

    Args:
        peers: whose folders are read.
        folder: what :func:`write_inputs` wrote.

    Raises:
        UserError: a folder without the result of an input, or with others, or with results of
            another size than the ground truth.
    """
    found = {}
    for peer in peers:
        images, references = image_files.matched(
            Path(peer["images"]).expanduser(), folder / REFERENCE
        )
        image_files.check_shapes(images, references)
        found[peer["name"]] = images
    return found

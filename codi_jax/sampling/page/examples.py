"""Pictures to try the page with: from the packages that are installed, and rendered."""

from pathlib import Path

import numpy as np
from PIL import Image

from codi_jax.data.scenes import SceneSource
from codi_jax.data.sources import SkimageSource
from codi_jax.sampling.page.work import within
from codi_jax.sampling.sizing import resampled
from codi_jax.tasks.base import Task

#: The longer side, for models that enlarge and for others.
SMALL, LARGE = 160, 512


def write_examples(task: Task, folder: Path) -> list[str]:
    """Write the pictures for a task.

    Args:
        task: a model's; it says whether photos or depth maps are taken, and how large.
        folder: made if need be; it must be the task's own.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if task.takes_map:
        scenes = SceneSource("eval")
        pictures = {f"scene {i}": np.asarray(scenes[i]["depth"]) for i in range(3)}
    else:
        longest = SMALL if task.scale > 1 else LARGE
        photos = SkimageSource("eval"), SkimageSource("train")
        elements = [photos[0][0], photos[0][1], photos[1][0]]  # a cat, a cup, an astronaut
        pictures = {
            Path(str(element["name"])).stem: resampled(
                image := np.asarray(element["image"]), within(image.shape[:2], longest)
            )
            for element in elements
        }
    paths = {name: folder / f"{name}.png" for name in pictures}
    for name, path in paths.items():
        Image.fromarray(pictures[name]).save(path)
    return [str(path) for path in paths.values()]

"""What the study's rows are scored on: crops or whole pictures, by how they were degraded."""

import functools
from collections.abc import Callable, Iterator

import numpy as np

from codi_jax.data.pipeline import Batch, eval_samples
from codi_jax.data.sources import make_source
from codi_jax.evals.networks import Networks
from codi_jax.evals.scoring import Scorer
from codi_jax.run.config import ConfigDict, build_task
from codi_jax.sampling.batches import buckets
from codi_jax.tasks.base import Task

#: From arrays of one size to pictures uint8 [N, H, W, 3]; the number is that of the first.
Make = Callable[[Batch, int], np.ndarray]


class StudySet:
    """Held-out pictures that rows are scored on.

    Args:
        run: the config of the study's runs: task and data.
        options: ``source`` ("" for the run's held-out pictures), ``count`` (0 for all of them),
            ``size`` of the crops in pixels (0 for whole pictures) and ``degradation``.
        seed: of crops and degradations.
        networks: the metrics.
    """

    def __init__(self, run: ConfigDict, options: ConfigDict, seed: int, networks: Networks):
        self._run, self._options, self._seed, self.networks = run, options, seed, networks

    def __str__(self) -> str:
        what = f"crops of {self._options.size} px" if self._options.size else "whole pictures"
        how = {
            "bicubic": f"reduced by {self.task.scale} bicubically, with no further harm",
            "realesrgan": "degraded as Real-ESRGAN does",
        }
        kind = self._options.degradation
        return f"{len(self.samples)} {what}, {how.get(kind, f'degraded by {kind!r}')}"

    @functools.cached_property
    def task(self) -> Task:
        """The run's, with this set's degradation."""
        run = self._run.copy_and_resolve_references()
        run.data.degradation = self._options.degradation
        return build_task(run)

    @functools.cached_property
    def samples(self) -> list[Batch]:
        """What each picture is made of: the task's arrays."""
        data, options, task = self._run.data, self._options, self.task
        source = make_source(options.source or data.eval_source or data.source, "eval")
        crops = functools.partial(task.transforms, options.size, train=False)
        framed = crops() if options.size else task.whole_frames()
        samples = eval_samples(source, framed, self._seed)
        found = (samples[i] for i in range(options.count or len(source)))
        return [{name: sample[name] for name in task.arrays} for sample in found]

    def groups(self, size: int) -> Iterator[tuple[list[int], Batch]]:
        """Pictures of one size side by side, at most ``size`` at a time, with their numbers."""
        samples = self.samples
        for numbers in buckets(range(len(samples)), lambda i: samples[i]["image"].shape, size):
            names = samples[numbers[0]]
            yield numbers, {name: np.stack([samples[i][name] for i in numbers]) for name in names}

    def made(self, make: Make, size: int) -> list[np.ndarray]:
        """The pictures that ``make`` gives for groups of at most ``size``, in order."""
        found: dict[int, np.ndarray] = {}
        for numbers, group in self.groups(size):
            found.update(zip(numbers, make(group, numbers[0]), strict=True))
        return [found[i] for i in range(len(self.samples))]

    @functools.cached_property
    def baselines(self) -> dict[str, list[np.ndarray]]:
        """Simple results for the pictures, by name."""
        found: dict[str, dict[int, np.ndarray]] = {}
        for numbers, group in self.groups(len(self.samples)):
            simple = {**self.task.baselines(group), **self.task.more_baselines(group)}
            for name, pictures in simple.items():
                found.setdefault(name, {}).update(zip(numbers, pictures, strict=True))
        return {name: [one[i] for i in sorted(one)] for name, one in found.items()}

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Scores pictures like these, and keeps the score of each for differences."""
        images = [sample["image"] for sample in self.samples]
        return Scorer(images, self.networks, keep_values=True)

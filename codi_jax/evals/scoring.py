"""Scores of sets of images by all metrics, and by a task's own measures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from codi_jax.evals import distributions, image_metrics, niqe
from codi_jax.evals.image_metrics import Images
from codi_jax.evals.metrics import METRICS, WEIGHT_FREE, WEIGHT_FREE_OF_SETS, Metric
from codi_jax.evals.networks import Network, Networks
from codi_jax.evals.results import Results, Score, Scores
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnMeasures:
    """A task's own measures of images.

    Attributes:
        measure: from images to the value of each measure: a number for all of them together, or
            a list with one for each, None where the measure does not apply.
        directions: the measures' names, and whether more is better.
        per_image: whether ``measure`` gives lists.
        convention: whose they are, and where that is written.
    """

    measure: Callable[[Images], Mapping[str, float | Sequence[float | None]]]
    directions: Mapping[str, bool]
    per_image: bool
    convention: str = "the task's own, see docs/tasks.md"

    def metrics(self) -> dict[str, Metric]:
        """What the measures' names mean."""
        how = "of each image, mean over images" if self.per_image else "of all images together"
        return {
            name: Metric(
                higher_is_better=higher_is_better,
                convention=f"{self.convention}; {how}",
                heading=name,
                paired=False,
                per_image=self.per_image,
            )
            for name, higher_is_better in self.directions.items()
        }


def check_no_reference(metrics: Sequence[str]) -> None:
    """Hold the metrics against the absence of ground truth.

    Raises:
        UserError: one of them needs it.
    """
    need = [name for name in metrics if name in METRICS and METRICS[name].reference]
    if need:
        without = ", ".join(name for name, metric in METRICS.items() if not metric.reference)
        raise UserError(
            f"{', '.join(need[:3])}{', ...' if need[3:] else ''}: these are compared with ground "
            "truth, and none is given. Give its folder by --reference, or by --metrics only what "
            f"needs none: {without}."
        )


class Scorer:
    """Scores sets of images against one set of references: a run, `evaluate` and `study` alike.

    Args:
        references: RGB images; read anew for every metric, so that they can be files. None
            where there is no ground truth.
        networks: says which metrics. If it names none, those that need no weights and that
            images of this size allow; None for the task's own measures alone.
        border: pixels cut off each side for the metrics of :mod:`codi_jax.evals.image_metrics`.
        texts: captions of the images, for "clip".
        paired: whether the references are the right results; if not, and ``networks`` names no
            metric, only sets are compared.
        own: the task's own measures.
        keep_values: whether the scores hold the value of each image, and of the sliced
            Wasserstein distance those without each of some groups of images.

    Attributes:
        warnings: what the reader of the scores must know.

    Raises:
        UserError: a metric that needs references, and there are none.
    """

    def __init__(
        self,
        references: Images | None,
        networks: Networks | None,
        border: int = 0,
        texts: Sequence[str] | None = None,
        paired: bool = True,
        own: OwnMeasures | None = None,
        keep_values: bool = False,
    ):
        self.references, self.border, self.texts = references, border, texts
        self.warnings = list(networks.warnings) if networks else []
        self._networks, self._own, self._keep = networks, own, keep_values
        self._reference_features: np.ndarray | None = None
        self._count = 0 if references is None else len(references)
        names: Sequence[str] = ()
        if networks is not None:
            names = networks.metrics or (self._default() if paired else WEIGHT_FREE_OF_SETS)
        if references is None:
            check_no_reference(names)
        if "fid" in names:
            self._warn_if_few(self._count, "references")
        self._names = tuple(names)

    @property
    def metrics(self) -> dict[str, Metric]:
        """What is computed, in the order of the scores."""
        own = self._own.metrics() if self._own else {}
        return {**{name: METRICS[name] for name in self._names}, **own}

    def __call__(self, columns: Mapping[str, Images]) -> dict[str, dict[str, Score]]:
        """The scores of each column of images.

        A measure of the task that does not apply to every image is left out, with a warning.

        Args:
            columns: as many images as there are references, by a name.

        Returns:
            The scores by column and metric, metrics in the order of :attr:`metrics`.

        Raises:
            UserError: images that do not fit the references, or a metric.
        """
        for images in columns.values():
            self._count = len(images)
        return {
            name: {**self._scores(images), **self._own_scores(images)}
            for name, images in columns.items()
        }

    def results(
        self,
        scores: Mapping[str, Mapping[int | None, Scores]],
        task: str | None = None,
        setting: Mapping[str, object] | None = None,
    ) -> Results:
        """What is written of scores that this scorer gave, arranged as ``Results.scores``."""
        found = {name for steps in scores.values() for row in steps.values() for name in row}
        return Results(
            images=self._count,
            metrics={name: metric for name, metric in self.metrics.items() if name in found},
            scores=scores,
            task=task,
            setting=setting or {},
            warnings=tuple(self.warnings),
        )

    def _scores(self, images: Images) -> dict[str, Score]:
        values: dict[str, float | np.ndarray] = {}
        alone = [name for name in self._names if name in niqe.METRICS]
        if alone:
            values |= niqe.scores_per_image(images, alone)
        if "clip" in self._names:
            values["clip"] = self._network("clip")(images, self.texts or [""] * len(images))
        if self.references is not None:
            values |= self._against(images, self.references)
        for name, found in values.items():
            self._say_infinite(name, found, images)
            self._say_undefined(name, found, images)
        scores = {name: Score.of(values[name], self._keep) for name in self._names}
        if self._keep and "swd" in scores and self.references is not None and len(images) > 1:
            left_out = tuple(map(float, distributions.swd_left_out(images, self.references)))
            scores["swd"] = dataclasses.replace(scores["swd"], left_out=left_out)
        return scores

    def _against(self, images: Images, references: Images) -> dict[str, float | np.ndarray]:
        """The values of the metrics that need ground truth."""
        values: dict[str, float | np.ndarray] = {}
        host = [name for name in self._names if name in image_metrics.METRICS]
        if host:
            values |= image_metrics.scores_per_image(images, references, host, self.border)
        for name in ("lpips_alex", "lpips_vgg", "dists"):
            if name in self._names:
                values[name] = self._network(name)(images, references)
        if "swd" in self._names:
            values["swd"] = distributions.swd(images, references)
        if "fid" in self._names or "kid" in self._names:
            values |= self._feature_distances(images, references)
        return values

    def _say_undefined(self, metric: str, values: float | np.ndarray, images: Images) -> None:
        """Name the images without a value, which leave the mean without one."""
        undefined = np.flatnonzero(np.isnan(np.asarray(values)))
        if isinstance(values, np.ndarray) and len(undefined):
            self._warn(
                f"{metric} is not defined for {len(undefined)} of {len(values)} images, which are "
                f"flat: {_listed(images, undefined)}; leave them out for a mean of the others"
            )

    def _say_infinite(self, metric: str, values: float | np.ndarray, images: Images) -> None:
        """Name the pairs that make a mean infinite."""
        equal = np.flatnonzero(np.isinf(np.asarray(values)))
        if not isinstance(values, np.ndarray) or not len(equal):
            return
        self._warn(
            f"{metric} is infinite, for {len(equal)} of {len(values)} images are equal to their "
            f"references: {_listed(images, equal)}; leave them out for a mean of the others"
        )

    def _own_scores(self, images: Images) -> dict[str, Score]:
        scores = {}
        for name, values in (self._own.measure(images) if self._own else {}).items():
            if not isinstance(values, Sequence):
                scores[name] = Score.of(float(values))
                continue
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                found = np.array(known, np.float64)
                self._say_infinite(name, found, images)
                scores[name] = Score.of(found, self._keep)
            elif known:
                self._warn(f"{name} is left out: only {len(known)} of {len(values)} images have it")
        return scores

    def _feature_distances(self, images: Images, references: Images) -> dict[str, float]:
        network = self._network("fid")
        if self._reference_features is None:
            self._reference_features = network(references)
        features = network(images)
        if "fid" in self._names:
            self._warn_if_few(len(images), "images")
        distances = {"fid": distributions.fid, "kid": distributions.kid}
        return {
            name: distance(features, self._reference_features)
            for name, distance in distances.items()
            if name in self._names
        }

    def _network(self, metric: str) -> Network:
        assert self._networks is not None  # it named the metric
        return self._networks[metric]

    def _default(self) -> tuple[str, ...]:
        if self.references is None:
            return WEIGHT_FREE  # and they are refused
        smallest = min(min(image.shape[:2]) for image in self.references) - 2 * self.border
        if smallest >= image_metrics.MS_SMALLEST:
            return WEIGHT_FREE
        self._warn(
            f"ms_ssim is left out: the smallest image has {smallest} of the "
            f"{image_metrics.MS_SMALLEST} pixels a side that it needs"
        )
        return tuple(name for name in WEIGHT_FREE if name != "ms_ssim")

    def _warn_if_few(self, n: int, what: str) -> None:
        if n < distributions.FEW:
            self._warn(
                f"fid of {n} {what}: below {distributions.FEW:,} images it is inaccurate and "
                "biased upwards; compare it only between sets of one size"
            )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _listed(images: Images, which: np.ndarray) -> str:
    """The first of some images by name."""
    names = getattr(images, "names", [f"image {i}" for i in range(len(images))])
    return ", ".join([*(str(names[i]) for i in which[:5]), *["..."] * (len(which) > 5)])

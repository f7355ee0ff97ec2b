"""The networks that metrics need, loaded before any long work."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from codi_jax.evals import image_metrics
from codi_jax.evals.metrics import METRICS, WEIGHT_FREE_OF_SETS
from codi_jax.evals.perceptual import ClipScore, Dists, InceptionFeatures, Lpips
from codi_jax.evals.weights import NETWORKS
from codi_jax.typing import UserError, check_choice

#: Folder of converted weights, unless another is given.
DEFAULT_WEIGHTS = Path(os.environ.get("CODI_JAX_WEIGHTS", "~/.cache/codi_jax"))
#: Lpips, Dists, InceptionFeatures or ClipScore: from images, and what they are compared with, to
#: an array.
Network = Callable[..., np.ndarray]
#: Metric -> its network, where that has another name.
_NETWORK_OF = {"fid": "inception", "kid": "inception"}


class Networks:
    """The networks that metrics need, loaded when this is made: before any long work.

    Args:
        metrics: names out of :data:`METRICS`; None for those that need no weights.
        weights: folder of converted files, see :mod:`codi_jax.evals.weights`.
        clip: directory or Hugging Face id of a CLIP.
        skip_missing: leave out a metric without weights, with a warning, instead of raising.

    Attributes:
        metrics: the names of those that can be computed; None as above.
        warnings: which ones cannot.

    Raises:
        UserError: an unknown metric; weights that are absent, unless they may be.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None,
        weights: Path = DEFAULT_WEIGHTS,
        clip: str = "",
        skip_missing: bool = False,
    ):
        for name in metrics or ():
            check_choice("metric", name, METRICS)
        weights = weights.expanduser()
        self.warnings: list[str] = []
        self._makers: dict[str, Callable[[], Network]] = {
            "lpips_alex": lambda: Lpips("alex", weights),
            "lpips_vgg": lambda: Lpips("vgg", weights),
            "dists": lambda: Dists(weights),
            "inception": lambda: InceptionFeatures(weights),
            "clip": lambda: ClipScore(clip),
        }
        self._loaded: dict[str, Network] = {}
        self.metrics: tuple[str, ...] | None = None
        if metrics is not None:
            wanted = [name for name in METRICS if name in metrics]
            self.metrics = tuple(name for name in wanted if self._load(name, skip_missing))
            if not self.metrics:
                raise UserError(f"metrics {', '.join(metrics) or '(none)'}: nothing to compute.")

    def __getitem__(self, metric: str) -> Network:
        """The network of a metric; FID and KID share one."""
        return self._loaded[_NETWORK_OF.get(metric, metric)]

    def _load(self, metric: str, skip_missing: bool) -> bool:
        network = _NETWORK_OF.get(metric, metric)
        if network not in self._makers or network in self._loaded:
            return True
        try:
            self._loaded[network] = self._makers[network]()
        except UserError as error:
            if not skip_missing:
                raise
            self.warnings.append(f"{metric} is left out: {error}")
            return False
        return True


def metrics_of_runs(weights: Path = DEFAULT_WEIGHTS) -> tuple[str, ...]:
    """Names of the metrics that runs report: LPIPS among them where its weights are."""
    lpips = ("lpips_alex",) if (weights.expanduser() / NETWORKS["alex"].converted).is_file() else ()
    return (*image_metrics.DEFAULT, *lpips, *WEIGHT_FREE_OF_SETS)

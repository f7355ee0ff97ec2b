"""What a run shows of itself: scores on a fixed held-out batch, and a labelled picture grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler import initial_noise
from codi_jax.evals.image_metrics import score
from codi_jax.evals.pictures import grid
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.conditioning import to_signed, to_uint8
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.tasks.base import Task
from codi_jax.typing import Cond, Params

Scores = dict[str, float]


class Evaluator:
    """Scores and pictures of one model on one batch.

    Args:
        model: the networks.
        task: what the model is for.
        batch: "image" uint8 [N, H, W, 3], and what the task reads.
        steps: numbers of sampling steps.
        directory: where ``step_N.png`` go.
        text: condition entries of the prompt, for U-Nets that take text.
        dtype: of the computation.
    """

    def __init__(
        self,
        model: AutoencoderModel,
        task: Task,
        batch: Mapping[str, np.ndarray],
        steps: Sequence[int],
        directory: Path,
        text: Cond | None = None,
        dtype: Any = jnp.float32,
    ):
        self.model, self.batch, self.steps = model, batch, tuple(steps)
        self.directory, self.text = directory, GuidedCondition(cond=text or {})
        self.task, vae = task, AutoencoderKL(model.vae, dtype)
        self._sampler = PictureSampler(model, dtype, task) if isinstance(model, Model) else None

        def reconstruct(params: Params, images: jax.Array) -> jax.Array:
            z = vae.apply({"params": params}, to_signed(images), method="encode")
            return to_uint8(vae.apply({"params": params}, z, method="decode"))

        self._reconstruct = jax.jit(reconstruct)

    def __call__(self, step: int, params: Params) -> dict[str, Scores]:
        """Write the grid of ``step``; the scores by column, e.g. ``{"4": {"psnr": ...}}``."""
        columns = self._columns(params)
        scores = self._scores(columns)
        labels = {
            f"{n} step{'s' * (n > 1)}": columns[str(n)] for n in self.steps if str(n) in columns
        }
        rest = {name: value for name, value in columns.items() if not name.isdigit()}
        last = "ground truth" if self.task.conditional or not labels else "photos"
        shown = {
            **self.task.inputs(self.batch),
            **self.task.baselines(self.batch),
            **rest,
            **labels,
            last: self.batch["image"],
        }
        rows = {name: list(pictures) for name, pictures in shown.items()}
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            grid(rows, self.directory / f"step_{step}.png", title=f"step {step}")
        return scores

    def baselines(self) -> dict[str, Scores]:
        """Scores of what must be beaten."""
        return self._scores(self.task.baselines(self.batch))

    def _scores(self, columns: Mapping[str, np.ndarray]) -> dict[str, Scores]:
        truth = list(self.batch["image"]) if self.task.scored else None
        scores = {
            name: {
                **(score(list(pictures), truth) if truth else {}),
                **self.task.score(pictures, self.batch),
            }
            for name, pictures in columns.items()
        }
        return {name: values for name, values in scores.items() if values}

    def _columns(self, params: Params) -> dict[str, np.ndarray]:
        p, key = self.model, jax.random.key(0)
        images = self.batch["image"]
        sampler = self._sampler
        if sampler is None:
            return {"reconstruction": np.asarray(self._reconstruct(params["vae"], images))}
        if self.task.conditional:
            arrays = {name: jnp.asarray(self.batch[name]) for name in self.task.reads}
            return {
                str(n): self._finish(sampler.conditional(params, arrays, key, n, self.text))
                for n in self.steps
            }
        f = p.vae.downsampling
        shape = (len(images), images.shape[1] // f, images.shape[2] // f, p.vae.latent_channels)
        noise = initial_noise(key, shape)
        return {
            str(n): np.asarray(sampler.generate(params, noise, n, self.text)) for n in self.steps
        }

    def _finish(self, pictures: jax.Array) -> np.ndarray:
        """The task's last touch on each picture."""
        examples = [
            {name: self.batch[name][i] for name in self.task.reads} for i in range(len(pictures))
        ]
        pairs = zip(np.asarray(pictures), examples, strict=True)
        return np.stack([self.task.finish(picture, example) for picture, example in pairs])


def task_results(
    task: str,
    method: str,
    baselines: Mapping[str, Scores],
    start: Mapping[str, Scores],
    now: Mapping[str, Scores],
    n: int,
) -> dict[str, Any]:
    """The content of ``results.json`` for a conditional task; ``now`` is under ``method``."""
    metrics = {**baselines, "start": dict(start), method: dict(now)}
    return {"task": task, "images": n, "metrics": metrics}


def table(results: Mapping[str, Any]) -> str:
    """``results.json`` as lines of text: a row per method and number of steps."""
    rows: list[tuple[str, str, Scores]] = []
    for method, value in results["metrics"].items():
        nested = all(isinstance(v, Mapping) for v in value.values())
        rows += [(method, n, s) for n, s in value.items()] if nested else [(method, "-", value)]
    names = list(rows[0][2])
    widths = {name: max(10, len(name) + 2) for name in names}
    lines = [f"{'method':<16}{'steps':>6}" + "".join(f"{k:>{w}}" for k, w in widths.items())]
    for method, n, s in rows:
        values = "".join(f"{s[name]:>{width}.4f}" for name, width in widths.items())
        lines.append(f"{method:<16}{n:>6}{values}")
    return "\n".join(lines)

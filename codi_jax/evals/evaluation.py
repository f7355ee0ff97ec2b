"""What a run shows of itself: scores on a fixed held-out batch, and a labelled picture grid."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, UInt8

from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.evals.networks import Networks, metrics_of_runs
from codi_jax.evals.pictures import grid
from codi_jax.evals.results import Results, Scores, in_steps
from codi_jax.evals.scoring import OwnMeasures, Scorer
from codi_jax.model import AutoencoderModel, Model
from codi_jax.models.autoencoders import make_autoencoder
from codi_jax.models.conditioning import signed_to_uint8, to_signed
from codi_jax.sampling.held_out import check_measures
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.tasks.base import Task
from codi_jax.typing import Array, Cond, Params

#: Pictures of one column, made or given.
Pictures = UInt8[np.ndarray, "images height width 3"]
#: What an autoencoder makes.
RECONSTRUCTION = "reconstruction"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A model at one step of its training.

    Attributes:
        scores: by number of sampling steps; None for an autoencoder's reconstructions. A model
            that nothing measures, a prior, has none.
        grid: the pictures side by side, as written to disk; None on all processes but the first.
    """

    scores: Mapping[int | None, Scores]
    grid: UInt8[np.ndarray, "height width 3"] | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """The values as they are logged, e.g. ``{"eval_4/psnr": 23.5}``."""
        return {
            f"eval_{RECONSTRUCTION if n is None else n}/{name}": score.value
            for n, scores in self.scores.items()
            for name, score in scores.items()
        }

    @property
    def pictures(self) -> dict[str, UInt8[np.ndarray, "1 height width 3"]]:
        """The grid as TensorBoard takes it."""
        return {} if self.grid is None else {"samples": self.grid[None]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A finished model that is shown beside the one in training.

    Attributes:
        name: what its column and its row are called.
        model: with its parameters, for the same task.
    """

    name: str
    model: Model


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
        beside: sampled once, in the largest number of steps.

    Raises:
        UserError: the task scores what it does not declare.
    """

    def __init__(
        self,
        model: AutoencoderModel,
        task: Task,
        batch: Mapping[str, np.ndarray],
        steps: Sequence[int],
        directory: Path,
        text: Cond | None = None,
        dtype: DTypeLike = jnp.float32,
        beside: Beside | None = None,
    ):
        self.model, self.batch, self.steps = model, batch, tuple(steps)
        self.directory, self.text = directory, GuidedCondition(cond=text or {})
        self.task, vae = task, make_autoencoder(model.vae, dtype)
        self._sampler = PictureSampler(model, dtype, task) if isinstance(model, Model) else None
        check_measures(task, {name: array[0] for name, array in batch.items()})
        self._scorer = Scorer(
            batch["image"],
            Networks(metrics_of_runs()) if task.scored else None,
            own=OwnMeasures(
                measure=lambda pictures: task.score(np.asarray(pictures), batch),
                directions=task.measures,
                per_image=False,
            ),
        )

        def reconstruct(
            params: Params, images: UInt8[Array, "batch height width 3"]
        ) -> UInt8[Array, "batch height width 3"]:
            z = vae.apply({"params": params}, to_signed(images), method="encode")
            return signed_to_uint8(vae.apply({"params": params}, z, method="decode"))

        self._reconstruct = jax.jit(reconstruct)
        self.beside, self._dtype = beside, dtype

    def __call__(self, step: int, params: Params) -> Evaluated:
        """Score the model, and write its grid of pictures.

        Args:
            step: of the training.
            params: of all networks.
        """
        return self.score(step, self.draw(params))

    def draw(self, params: Params) -> Mapping[int | None, Pictures]:
        """The model's pictures, by number of steps. Only they need its parameters."""
        images, sampler = self.batch["image"], self._sampler
        if sampler is None:
            return {None: np.asarray(self._reconstruct(params["vae"], images))}
        if self.task.conditional:
            return {n: self._conditional(sampler, params, n) for n in self.steps}
        noise = self._noise(sampler)
        return {n: np.asarray(sampler.generate(params, noise, n, self.text)) for n in self.steps}

    def score(self, step: int, columns: Mapping[int | None, Pictures]) -> Evaluated:
        """Score pictures of :meth:`draw`, and write their grid.

        Args:
            step: of the training.
            columns: the pictures, by number of steps.
        """
        scored = self._scorer({str(n): pictures for n, pictures in columns.items()})
        scores = {n: scored[str(n)] for n in columns if scored[str(n)]}
        if jax.process_index() != 0:
            return Evaluated(scores=scores)
        labels = {
            RECONSTRUCTION if n is None else in_steps(str(n)): pictures
            for n, pictures in columns.items()
        }
        last = "photos" if self._sampler and not self.task.conditional else "ground truth"
        shown = {
            **self.task.inputs(self.batch),
            **self.task.baselines(self.batch),
            **labels,
            **self._finished_model,
            last: self.batch["image"],
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        picture = grid(shown, self.directory / f"step_{step}.png", title=f"step {step}")
        return Evaluated(scores=scores, grid=picture)

    def results(self, method: str, start: Evaluated, end: Evaluated) -> Results:
        """The results of a run.

        Args:
            method: what the trained model is called.
            start: the model before training.
            end: the model after it.
        """
        beaten = self._scorer(self.task.baselines(self.batch))
        scores: dict[str, Mapping[int | None, Scores]] = {
            **{name: {None: row} for name, row in beaten.items() if row},
            "start": start.scores,
            method: end.scores,
        }
        for label, row in self._scorer(self._finished_model).items():
            scores[label] = {max(self.steps): row} if row else {}
        shown = {name: by_steps for name, by_steps in scores.items() if by_steps}
        return self._scorer.results(shown, self.task.key)

    @cached_property
    def _finished_model(self) -> Mapping[str, Pictures]:
        """Pictures of the model beside, by its name."""
        if self.beside is None:
            return {}
        model = self.beside.model
        sampler = PictureSampler(model, self._dtype, self.task)
        return {self.beside.name: self._conditional(sampler, model.params, max(self.steps))}

    def _conditional(self, sampler: PictureSampler, params: Params, steps: int) -> Pictures:
        arrays = {name: jnp.asarray(self.batch[name]) for name in self.task.reads}
        made = sampler.conditional(params, arrays, jax.random.key(0), steps, self.text)
        return self._finish(made)

    def _noise(self, sampler: PictureSampler) -> Float[Array, "images height width channels"]:
        vae = self.model.vae
        count, height, width, _ = self.batch["image"].shape
        f = vae.downsampling
        shape = (count, height // f, width // f, vae.latent_channels)
        return sampler.initial_noise(jax.random.key(0), shape)

    def _finish(self, pictures: Array) -> Pictures:
        """The task's last touch on each picture."""
        examples = [
            {name: self.batch[name][i] for name in self.task.reads} for i in range(len(pictures))
        ]
        pairs = zip(np.asarray(pictures), examples, strict=True)
        return np.stack([self.task.finish(picture, example) for picture, example in pairs])

"""The study: every method with one budget, scored on the same photos."""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.data.pipeline import Batch, eval_batch
from codi_jax.data.sources import make_source
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.evals import image_metrics
from codi_jax.evals.cost import sampling_cost, step_cost
from codi_jax.evals.networks import Networks
from codi_jax.evals.results import Results, Scores
from codi_jax.evals.scoring import Scorer
from codi_jax.evals.study_report import DISTRIBUTION, TABLES, StudyResults, write_report
from codi_jax.model import Model
from codi_jax.run.config import ConfigDict, build_task
from codi_jax.run.data import open_data, transforms
from codi_jax.run.peers import Peer, check_peers, results_of, write_inputs
from codi_jax.run.plan import plan
from codi_jax.run.start import start
from codi_jax.run.train import train
from codi_jax.run.workdir import RESULTS, check_workdir
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.sampling.load import MODEL, load_model
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.metrics import JSONL
from codi_jax.typing import Settings, UserError

#: Folder of the workdir that has the inputs and the ground truth, for other programs.
INPUTS = "inputs"
#: The stages whose cost is compared: one of each kind of training step.
COSTS = ("ldm", "codi", "pe_mix", "pe_controlnet", "pe_t2i", "cm", "cm_frozen", "gd2")


class Row(TypedDict):
    """One line of ``config.rows``: a stage's model, sampled in one way.

    Attributes:
        label: its name in the table.
        stage: whose model it is.
        steps: the numbers of sampling steps.
        sampler: fields of :class:`SamplerConfig` that are not the default's.
        table: where it stands.
    """

    label: str
    stage: str
    steps: Sequence[int]
    sampler: Settings
    table: str


class Study:
    """Everything about one study that is kept in its workdir."""

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config, self.workdir = config, workdir
        self.task = build_task(config.run)
        unknown = {row["stage"] for row in config.rows} - set(config.stages)
        if unknown:
            raise UserError(f"config.rows name the stages {sorted(unknown)}, which do not exist.")
        weights = Path(config.run.model.lpips_weights)
        judges = ("lpips_alex", DISTRIBUTION) if config.eval.lpips else (DISTRIBUTION,)
        self.networks = Networks((*image_metrics.DEFAULT, *judges), weights)
        self.rows = [row for row in config.rows if config.eval.lpips or not self._by_lpips(row)]
        self._samplers: list[tuple[Model, PictureSampler]] = []

    def _by_lpips(self, row: Row) -> bool:
        loss = self.config.stages[row["stage"]].config.loss
        by_lpips = "lpips" in (loss.get("distance"), loss.get("data_space"))
        return by_lpips or loss.get("lpips_weight", 0) > 0

    def stage_config(self, name: str) -> ConfigDict:
        """The config of one training run, with its start filled in."""
        stage = self.config.stages[name]
        config = stage.config.copy_and_resolve_references()
        if stage.start:
            config.model.pretrained = str(self.workdir / stage.start / MODEL)
        return config

    def stages(self) -> Iterator[str]:
        """The stages that the rows need, each after what it starts from."""
        seen: dict[str, None] = {}

        def visit(name: str) -> None:
            if self.config.stages[name].start:
                visit(self.config.stages[name].start)
            seen.setdefault(name)

        for row in self.rows:
            visit(row["stage"])
        yield from seen

    def train(self, name: str, interrupt: Interrupt | None = None) -> None:
        """One stage, unless its results are there.

        Raises:
            UserError: they are of another config.
            Interrupted: a signal stopped it.
        """
        workdir, config = self.workdir / name, self.stage_config(name)
        if (workdir / RESULTS).exists():
            check_workdir(config, workdir, finished=True)
            return
        begin = time.monotonic()
        train(config, workdir, interrupt)
        save_json(workdir / "time.json", {"seconds": time.monotonic() - begin})

    @functools.cached_property
    def batch(self) -> Batch:
        """The held-out pictures that every row is scored on."""
        return self._batch(self.config.run.data.eval_source or self.config.run.data.source)

    @functools.cached_property
    def baselines(self) -> dict[str, np.ndarray]:
        """Simple results for the pictures, by name."""
        return {**self.task.baselines(self.batch), **self.task.more_baselines(self.batch)}

    @functools.cached_property
    def peers(self) -> list[Peer]:
        """Other programs, as ``config.peers`` names them."""
        return check_peers(self.config.peers, {*self.baselines, *(r["label"] for r in self.rows)})

    def read_peers(self) -> dict[str, ImageFiles]:
        """Other programs' results for the study's inputs, which are written for them first."""
        write_inputs(self.workdir / INPUTS, self.task, self.batch)
        return results_of(self.peers, self.workdir / INPUTS)

    @functools.cached_property
    def shown(self) -> Batch:
        """The pictures of the report."""
        return self._batch(self.config.shown, 4)

    def _batch(self, source: str, count: int | None = None) -> Batch:
        run, options = self.config.run, self.config.eval
        shown = transforms(run, self.task, options.size)
        return eval_batch(make_source(source, "eval"), shown, count or options.count, options.seed)

    def model(self, stage: str) -> tuple[Model, PictureSampler]:
        """A trained stage's model; models of one architecture share their compiled programs."""
        model = load_model(self.workdir / stage)
        assert isinstance(model, Model)  # every stage trains a U-Net
        kind = dataclasses.replace(model, params={}, directory=None, adapter_directory=None)
        for known, sampler in self._samplers:
            if known == kind:
                return model, sampler
        self._samplers.append((kind, PictureSampler(kind)))
        return model, self._samplers[-1][1]

    def pictures(self, stage: str, steps: int, sampler: Settings, lr: np.ndarray) -> np.ndarray:
        """The results for low-resolution pictures, uint8 [N, H, W, 3]."""
        model, pictures = self.model(stage)
        size, config = self.config.eval.batch, SamplerConfig(**sampler)
        made = []
        for i in range(0, len(lr), size):
            key = jax.random.fold_in(jax.random.key(self.config.eval.seed), i)
            part = {"lr": jnp.asarray(lr[i : i + size])}
            made.append(pictures.conditional(model.params, part, key, steps, sampler=config))
        return np.concatenate([np.asarray(x) for x in made])

    @functools.cached_property
    def scorer(self) -> Scorer:
        """Scores pictures like :attr:`batch`, and keeps the score of each for differences."""
        return Scorer(self.batch["image"], self.networks, keep_values=True)

    def score(self, row: Row, steps: int) -> Scores:
        """A cell of the tables, from disk if it is there.

        Raises:
            UserError: it is there in another format.
        """
        name = _file_name(row)
        path = self.workdir / "rows" / f"{name}_{steps}.json"
        if not path.exists():
            images = self.pictures(row["stage"], steps, row["sampler"], self.batch["lr"])
            scores = self.scorer({name: images})[name]
            setting = {"stage": row["stage"], "sampler": dict(row["sampler"])}
            self.scorer.results({name: {steps: scores}}, self.task.key, setting).save(path)
        return Results.load(path).scores[name][steps]

    def tables(self) -> dict[str, Results]:
        """The scores of all rows by table; the methods' begin with what must be beaten."""
        beaten = self.scorer({**self.baselines, **self.read_peers()})
        scores: dict[str, dict[str, dict[int | None, Scores]]] = {name: {} for name in TABLES}
        scores["methods"] = {name: {None: row} for name, row in beaten.items()}
        for row, n in tqdm(self.cells, unit="cell"):
            scores[row["table"]].setdefault(row["label"], {})[n] = self.score(row, n)
        return {name: self.scorer.results(found, self.task.key) for name, found in scores.items()}

    @property
    def cells(self) -> list[tuple[Row, int]]:
        """Each row with each of its numbers of steps."""
        return [(row, n) for row in self.rows for n in row["steps"]]

    def cost(self, name: str) -> dict[str, float]:
        """FLOPs, memory and time of one training step of a stage."""
        path = self.workdir / "cost" / f"{name}.json"
        if not path.exists():
            config = self.stage_config(name)
            planned = plan(config)
            data, _ = open_data(config, planned.task)
            batch = {name: value for name, value in next(data).items() if name in self.task.arrays}
            data.close()
            run = start(planned)
            cost = step_cost(run.step, run.state, run.frozen, batch, planned.key, planned.mesh)
            save_json(path, cost)
        return load_json(path)

    def sampling(self, label: str, stage: str, steps: int) -> dict[str, str | float]:
        """Cost of one picture of a stage's model."""
        path = self.workdir / "cost" / f"{stage}_{steps}_steps.json"
        if not path.exists():
            model, _ = self.model(stage)
            save_json(path, sampling_cost(model, jnp.asarray(self.batch["lr"][:1]), steps))
        return {"label": label, "steps": steps, **load_json(path)}

    def run(self, interrupt: Interrupt | None = None) -> StudyResults:
        """Train, score and measure; returns what it writes to ``results.json``."""
        stages = list(self.stages())
        self.read_peers()  # what does not fit is said before anything is trained
        for name in stages:
            print(f"stage {name}", file=sys.stderr)
            self.train(name, interrupt)
        results = StudyResults(
            tables=self.tables(),
            cost={name: self.cost(name) for name in COSTS if name in stages},
            peers=self.peers,
            sampling=[
                self.sampling(row["label"], row["stage"], n)
                for row, n in self.cells
                if row["table"] == "methods" and not row["sampler"] and n in (4, 50)
            ],
            size=self.config.eval.size,
            steps=self.config.run.steps,
            batch_size=self.config.run.batch_size,
            device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        )
        results.save(self.workdir / RESULTS)
        return results

    def report(self, command: str) -> Path:
        """Write the report of a study that was run; its path."""
        folder = Path(self.config.report)
        losses = {name: self.workdir / name / JSONL for name in self.stages()}
        results = StudyResults.load(self.workdir / RESULTS)
        write_report(results, losses, self.columns(), folder, command)
        return folder / "results.md"

    def columns(self, steps: int = 4) -> dict[str, list[np.ndarray]]:
        """The report's pictures side by side: one column per method."""
        batch = self.shown
        shown = {name: list(images) for name, images in self.task.baselines(batch).items()}
        for row in self.rows:
            if row["table"] == "methods" and steps in row["steps"]:
                images = self.pictures(row["stage"], steps, row["sampler"], batch["lr"])
                shown[row["label"]] = list(images)
        return {**shown, "ground truth": list(batch["image"])}


def _file_name(row: Row) -> str:
    return "_".join((row["stage"], *map(str, row["sampler"].values())))

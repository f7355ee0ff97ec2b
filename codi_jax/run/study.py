"""The study: every method with one budget, scored on the same photos."""

import dataclasses
import functools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.data.images import load_image, save_image
from codi_jax.data.pipeline import Batch
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.evals import image_metrics
from codi_jax.evals.cost import sampling_cost
from codi_jax.evals.networks import Networks
from codi_jax.evals.results import Results, Scores
from codi_jax.evals.study_report import DISTRIBUTION, MAIN, TABLES, StudyResults, write_report
from codi_jax.model import Model
from codi_jax.run.config import ConfigDict
from codi_jax.run.peers import Peer, check_peers, results_of, write_inputs
from codi_jax.run.study_sets import StudySet
from codi_jax.run.study_stages import Stages
from codi_jax.run.workdir import RESULTS
from codi_jax.sampling.held_out_files import image_name
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.sampling.load import load_model
from codi_jax.sampling.picture_sampler import PictureSampler
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.metrics import JSONL
from codi_jax.typing import Settings, UserError

#: Folder of the workdir that has the inputs and the ground truth, for other programs.
INPUTS = "inputs"
#: The stages whose cost is compared: one of each kind of training step.
COSTS = ("ldm", "codi", "pe_mix", "pe_controlnet", "pe_t2i", "cm", "cm_frozen", "gd2")
#: How many pictures the report shows, and the steps that they are made in.
SHOWN, SHOWN_STEPS = 2, 4
#: Scores by method and number of steps, None where nothing is sampled.
ByMethod = dict[str, dict[int | None, Scores]]


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
        self.stages = Stages(config.stages, config.passes, workdir)
        unknown = {row["stage"] for row in config.rows} - set(config.stages)
        if unknown:
            raise UserError(f"config.rows name the stages {sorted(unknown)}, which do not exist.")
        weights = Path(config.run.model.lpips_weights)
        judges = ("lpips_alex", DISTRIBUTION) if config.eval.lpips else (DISTRIBUTION,)
        networks = Networks((*image_metrics.DEFAULT, *judges), weights)
        self.rows: list[Row] = [
            row for row in config.rows if config.eval.lpips or not self._by_lpips(row)
        ]
        self.sets = {
            name: StudySet(config.run, options, config.eval.seed, networks)
            for name, options in config.sets.items()
            if options.source is not None
        }
        self._samplers: list[tuple[Model, PictureSampler]] = []

    def _by_lpips(self, row: Row) -> bool:
        loss = self.config.stages[row["stage"]].config.loss
        by_lpips = "lpips" in (loss.get("distance"), loss.get("data_space"))
        return by_lpips or loss.get("lpips_weight", 0) > 0

    def needed_stages(self) -> list[str]:
        """The stages that the rows need, each after what it starts from."""
        return list(self.stages.needed(row["stage"] for row in self.rows))

    def train(self, names: Iterable[str], interrupt: Interrupt | None = None) -> None:
        """Train some stages and what they start from, unless their results are there.

        Raises:
            UserError: there is no such stage; or another process trains it.
            Interrupted: a signal stopped one.
        """
        for name in self.stages.needed(names):
            print(f"stage {name}", file=sys.stderr)
            self.stages.train(name, interrupt)

    @functools.cached_property
    def peers(self) -> list[Peer]:
        """Other programs, as ``config.peers`` names them."""
        taken = {*self.sets[MAIN].baselines, *(row["label"] for row in self.rows)}
        return check_peers(self.config.peers, taken)

    def read_peers(self) -> dict[str, ImageFiles]:
        """Other programs' results for the study's inputs, which are written for them first."""
        main = self.sets[MAIN]
        ((_, batch),) = main.groups(len(main.samples))
        write_inputs(self.workdir / INPUTS, main.task, batch)
        return results_of(self.peers, self.workdir / INPUTS)

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

    def pictures(
        self, stage: str, steps: int, sampler: Settings, pictures_of: StudySet
    ) -> list[np.ndarray]:
        """The results for a set's pictures, uint8 [H, W, 3] each."""
        model, by = self.model(stage)
        root, config = jax.random.key(self.config.eval.seed), SamplerConfig(**sampler)

        def make(group: Batch, first: int) -> np.ndarray:
            arrays = {name: jnp.asarray(group[name]) for name in pictures_of.task.reads}
            key = jax.random.fold_in(root, first)
            return np.asarray(by.conditional(model.params, arrays, key, steps, sampler=config))

        return pictures_of.made(make, self.config.eval.batch)

    def score(self, on: str, row: Row, steps: int, *, make: bool = True) -> Scores | None:
        """A cell of the tables, from disk if it is there; None if it is not and must not be made.

        Raises:
            UserError: it is there in another format.
        """
        name, found = _file_name(row), self.sets[on]
        path = self.workdir / "rows" / on / f"{name}_{steps}.json"
        if not path.exists():
            if not (make and self.stages.finished(row["stage"])):
                return None
            images = self.pictures(row["stage"], steps, row["sampler"], found)
            scores = found.scorer({name: images})[name]
            setting = {"stage": row["stage"], "sampler": dict(row["sampler"])}
            found.scorer.results({name: {steps: scores}}, found.task.key, setting).save(path)
        return Results.load(path).scores[name][steps]

    def beaten(self, on: str) -> Results:
        """The scores of simple results for a set's pictures, from disk if they are there."""
        path, found = self.workdir / "rows" / on / "baselines.json", self.sets[on]
        if not path.exists():
            scored = found.scorer(found.baselines)
            scores: ByMethod = {name: {None: s} for name, s in scored.items()}
            found.scorer.results(scores, found.task.key, {"pictures": str(found)}).save(path)
        return Results.load(path)

    def cells(self, table: str) -> list[tuple[Row, int]]:
        """The rows of a table, each with each of its numbers of steps.

        Beside :data:`TABLES` there is one for each further set, of the methods in few steps.
        """
        if table in TABLES:
            return [(row, n) for row in self.rows if row["table"] == table for n in row["steps"]]
        few = self.config.elsewhere.steps
        return [(row, n) for row, n in self.cells("methods") if n in few]

    def table(self, name: str, *, make: bool) -> Results:
        """The scores of a table's rows; the methods' begin with what must be beaten."""
        on = MAIN if name in TABLES else name
        scores: ByMethod = {}
        beaten = self.beaten(on)
        if name != "ablations":
            scores |= {key: dict(value) for key, value in beaten.scores.items()}
        if name == "methods":
            scores |= self._peers_scores(make)
        for row, n in tqdm(self.cells(name), unit="cell", desc=name):
            found = self.score(on, row, n, make=make)
            if found is not None:
                scores.setdefault(row["label"], {})[n] = found
        return dataclasses.replace(beaten, scores=scores)

    def _peers_scores(self, make: bool) -> ByMethod:
        path, main = self.workdir / "rows" / MAIN / "peers.json", self.sets[MAIN]
        if make:  # their folders may have changed
            scored = main.scorer(self.read_peers())
            by_name: ByMethod = {name: {None: scores} for name, scores in scored.items()}
            main.scorer.results(by_name, main.task.key).save(path)
        return {key: dict(value) for key, value in Results.load(path).scores.items()}

    def _cost(self, stage: str, make: bool, steps: int | None = None) -> dict[str, float]:
        """Of one training step of a stage, or of one picture of its model in ``steps`` steps.

        It is from disk if it is there; {} if it must not be made.
        """
        name = stage if steps is None else f"{stage}_{steps}_steps"
        path = self.workdir / "cost" / f"{name}.json"
        if not path.exists() and make and self.stages.finished(stage):
            save_json(
                path, self.stages.cost(stage) if steps is None else self._sampling(stage, steps)
            )
        return load_json(path) if path.exists() else {}

    def _sampling(self, stage: str, steps: int) -> dict[str, float]:
        lr = jnp.asarray(self.sets[MAIN].samples[0]["lr"][None])
        return sampling_cost(self.model(stage)[0], lr, steps)

    def results(self, *, make: bool) -> StudyResults:
        """Score and measure what is trained; written to ``results.json``.

        Args:
            make: False for what is on disk alone.
        """
        costs = {name: self._cost(name, make) for name in COSTS if name in self.config.stages}
        sampling = [
            (row["label"], n, self._cost(row["stage"], make, n))
            for row, n in self.cells("methods")
            if not row["sampler"] and n in (4, 50)
        ]
        tables = (*TABLES, *(name for name in self.sets if name != MAIN))
        results = StudyResults(
            tables={name: self.table(name, make=make) for name in tables},
            cost={name: cost for name, cost in costs.items() if cost},
            peers=self.peers,
            sampling=[{"label": x, "steps": n, **cost} for x, n, cost in sampling if cost],
            sets={name: str(self.beaten(name).setting["pictures"]) for name in self.sets},
            missing=[name for name in self.needed_stages() if not self.stages.finished(name)],
            passes=self.config.passes,
            crop=self.config.run.data.size,
            device=f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        )
        results.save(self.workdir / RESULTS)
        if make:
            self.columns(make=True)
        return results

    def run(self, interrupt: Interrupt | None = None) -> StudyResults:
        """Train, score and measure; returns what it writes to ``results.json``."""
        self.read_peers()  # what does not fit is said before anything is trained
        self.train(self.needed_stages(), interrupt)
        return self.results(make=True)

    def report(self, command: str) -> Path:
        """Write the report of what :meth:`results` wrote; its path."""
        folder = Path(self.config.report)
        logs = {name: self.workdir / name / JSONL for name in self.needed_stages()}
        losses = {name: log for name, log in logs.items() if log.exists()}
        results = StudyResults.load(self.workdir / RESULTS)
        write_report(results, losses, self.columns(make=False), folder, command)
        return folder / "results.md"

    def columns(self, *, make: bool) -> dict[str, list[np.ndarray]]:
        """The report's pictures side by side: one column per method, kept in the workdir."""
        options = self.config.sets[MAIN].copy_and_resolve_references()
        options.source, options.count = self.config.shown, SHOWN
        run, seed = self.config.run, self.config.eval.seed
        shown = StudySet(run, options, seed, self.sets[MAIN].networks)
        columns = {name: shown.baselines[name] for name in shown.baselines if name != "lanczos"}
        for row, n in self.cells("methods"):
            folder = self.workdir / "shown" / _file_name(row)
            paths = [folder / image_name(i) for i in range(SHOWN)]
            if n != SHOWN_STEPS:
                continue
            if make and self.stages.finished(row["stage"]) and not paths[-1].exists():
                made = self.pictures(row["stage"], n, row["sampler"], shown)
                for path, picture in zip(paths, made, strict=True):
                    save_image(path, picture)
            if paths[-1].exists():
                columns[row["label"]] = [load_image(path) for path in paths]
        return {**columns, "ground truth": [sample["image"] for sample in shown.samples]}


def _file_name(row: Row) -> str:
    return "_".join((row["stage"], *map(str, row["sampler"].values())))

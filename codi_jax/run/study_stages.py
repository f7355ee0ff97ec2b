"""The study's training runs: each gets its share of one budget of U-Net passes."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.evals.cost import step_cost
from codi_jax.run.config import ConfigDict
from codi_jax.run.data import open_data
from codi_jax.run.passes import step_passes
from codi_jax.run.plan import plan
from codi_jax.run.start import start
from codi_jax.run.train import train
from codi_jax.run.workdir import RESULTS, check_workdir
from codi_jax.sampling.load import MODEL
from codi_jax.train.interrupt import Interrupt
from codi_jax.typing import UserError

#: Halvings of progressive distillation in a study: 16, 8 and 4 steps; the tables compare at 4.
HALVINGS = 3


class Stages:
    """The training runs below a study's workdir.

    Args:
        config: ``config.stages``: by name what a run starts from, the parts that its budget is
            one of, and its config.
        passes: the budget in U-Net passes.
        workdir: of the study.
    """

    def __init__(self, config: Mapping[str, ConfigDict], passes: float, workdir: Path):
        self._stages, self._passes, self.workdir = config, passes, workdir

    def needed(self, names: Iterable[str]) -> Iterator[str]:
        """These stages and what they start from, each after what it starts from.

        Raises:
            UserError: there is no stage of such a name.
        """
        seen: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in self._stages:
                raise UserError(
                    f"there is no stage {name!r}: config.stages has {', '.join(self._stages)}."
                )
            if self._stages[name].start:
                visit(self._stages[name].start)
            seen.setdefault(name)

        for name in names:
            visit(name)
        yield from seen

    def finished(self, name: str) -> bool:
        """Whether its model is there."""
        return (self.workdir / name / RESULTS).exists()

    def config(self, name: str) -> ConfigDict:
        """The config of one training run, with its start and its steps filled in.

        What it starts from must be there: the steps follow from what a step costs.
        """
        stage = self._stages[name]
        config = stage.config.copy_and_resolve_references()
        if stage.start:
            config.model.pretrained = str(self.workdir / stage.start / MODEL)
        passes = self._passes / stage.parts
        config.steps = max(round(passes / self.passes_of_a_step(name, config)), HALVINGS)
        if "steps_per_stage" in config.loss:
            config.loss.steps_per_stage = config.steps // HALVINGS
        return config

    def passes_of_a_step(self, name: str, config: ConfigDict) -> float:
        """U-Net passes of one step; counting takes seconds, and is done once for a config."""
        path = self._passes_file(name)
        counted = json.loads(json.dumps(config.to_dict(), default=str))
        if not path.exists() or load_json(path).get("config") != counted:
            save_json(path, {"passes": step_passes(plan(config)), "config": counted})
        return load_json(path)["passes"]

    def _passes_file(self, name: str) -> Path:
        return self.workdir / "passes" / f"{name}.json"

    def train(self, name: str, interrupt: Interrupt | None = None) -> None:
        """One stage, unless its results are there.

        Raises:
            UserError: they are of another config.
            Interrupted: a signal stopped it.
        """
        workdir, config = self.workdir / name, self.config(name)
        if self.finished(name):
            check_workdir(config, workdir, finished=True)
            return
        begin = time.monotonic()
        train(config, workdir, interrupt)
        save_json(workdir / "time.json", {"seconds": time.monotonic() - begin})

    def cost(self, name: str) -> dict[str, float]:
        """FLOPs, memory and time of one training step, its "passes" a picture, and the "steps"."""
        config = self.config(name)
        planned = plan(config)
        data, _ = open_data(config, planned.task)
        drawn = next(data)
        data.close()
        batch = {array: drawn[array] for array in planned.task.arrays}
        run = start(planned)
        cost = step_cost(run.step, run.state, run.frozen, batch, planned.key, planned.mesh)
        passes = load_json(self._passes_file(name))["passes"] / config.batch_size
        return {**cost, "passes": passes, "steps": config.steps}

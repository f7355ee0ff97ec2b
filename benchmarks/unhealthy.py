"""Runs that are broken on purpose, beside a healthy one: what does each look like in the log?

    python -m benchmarks.unhealthy --workdir runs/unhealthy --source PHOTOS

Each is `configs/sr.py` with one thing wrong. Printed is a table of their losses as they go and of
the scores that they end with; `unhealthy.png` in the workdir draws the losses. What is finished is
not run again; `--only learning_rate,bfloat16` runs some.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.evals.plots import save_figure
from codi_jax.evals.results import Results
from codi_jax.evals.run_report import read_lines
from codi_jax.parallel.platform import keep_compiled
from codi_jax.run import train as training
from codi_jax.run.config import ConfigDict
from codi_jax.run.plan import Plan, plan
from codi_jax.run.workdir import RESULTS
from codi_jax.train.metrics import JSONL
from codi_jax.train.state import TrainState
from codi_jax.typing import Array, Params
from configs import sr

#: What the table shows: means over the tenth of the run that ends there.
SHARES = (0.1, 0.5, 1.0)
TERMS = ("data", "consistency", "grad_norm")


def _healthy(config: ConfigDict, workdir: Path) -> None:
    """Nothing is wrong."""


def _learning_rate(config: ConfigDict, workdir: Path) -> None:
    """Thirty times the learning rate."""
    config.optim.learning_rate *= 30


def _prediction_type(config: ConfigDict, workdir: Path) -> None:
    """The prior predicts v, and its scheduler says that it predicts the noise."""
    # With zero terminal SNR that is refused before anything starts.
    wrong = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}
    _changed_prior(config, workdir, "scheduler/scheduler_config.json", **wrong)


def _codec(config: ConfigDict, workdir: Path) -> None:
    """The autoencoder's latents are four times larger than those that the prior was trained on."""
    scale = load_json(checkpoint_path("prior") / "vae" / "config.json")["scaling_factor"]
    _changed_prior(config, workdir, "vae/config.json", scaling_factor=4 * scale)


def _no_guidance(config: ConfigDict, workdir: Path) -> None:
    """No conditional guidance: the data term is left out."""
    config.loss.data_weight = 0.0


def _frozen(config: ConfigDict, workdir: Path) -> None:
    """The adapter is frozen by mistake: its mu stays 0, so the condition is never read."""
    config.model.trainable = "unet/.*"


def _bfloat16(config: ConfigDict, workdir: Path) -> None:
    """The parameters are kept in bfloat16: most updates are smaller than what it can hold."""


BROKEN: dict[str, Callable[[ConfigDict, Path], None]] = {
    "healthy": _healthy,
    "learning_rate": _learning_rate,
    "prediction_type": _prediction_type,
    "bfloat16": _bfloat16,
    "no_guidance": _no_guidance,
    "frozen": _frozen,
    "codec": _codec,
}


def _changed_prior(config: ConfigDict, workdir: Path, file: str, **values: object) -> None:
    copy = workdir.with_name(f"{workdir.name}_prior")
    if not copy.exists():
        shutil.copytree(checkpoint_path("prior"), copy)
        save_json(copy / file, {**load_json(copy / file), **values})
    config.model.pretrained = str(copy)


def _plan_in_bfloat16(config: ConfigDict) -> Plan:
    """A plan whose step rounds the parameters after each update."""
    planned, held = plan(config), jnp.finfo(jnp.bfloat16)

    def rounded(
        state: TrainState, frozen: Params, batch: Mapping[str, Array], key: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        state, metrics = planned.step_fn(state, frozen, batch, key)

        def through_bfloat16(x: Array) -> Array:
            # A cast and its inverse would be left out by the compiler.
            return jax.lax.reduce_precision(x, held.nexp, held.nmant)

        trainable = jax.tree.map(through_bfloat16, state.trainable)
        return dataclasses.replace(state, trainable=trainable), metrics

    return dataclasses.replace(planned, step_fn=rounded)


def run(name: str, config: ConfigDict, workdir: Path) -> None:
    """One run, unless it is finished."""
    if (workdir / RESULTS).exists():
        return
    BROKEN[name](config, workdir)
    planner = _plan_in_bfloat16 if name == "bfloat16" else plan
    with mock.patch.object(training, "plan", planner):
        training.train(config, workdir)


def lines_of(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's log that are of training."""
    return [line for line in read_lines(workdir / JSONL) if "loss" in line]


def table(workdirs: dict[str, Path], steps: int) -> str:
    """Markdown: what the logs say on the way, and the scores of 4 steps at the end."""
    columns = [f"{term} at {round(share * steps)}" for term in TERMS for share in SHARES]
    lines = [
        f"| run | {' | '.join(columns)} | PSNR | SWD |",
        f"|{'---|' * (len(columns) + 3)}",
    ]
    for name, workdir in workdirs.items():
        logged = lines_of(workdir)
        cells = []
        for term in TERMS:
            for share in SHARES:
                span = (max(share - 0.1, 0) * steps, share * steps)
                found = [x[term] for x in logged if span[0] < x["step"] <= span[1] and term in x]
                cells.append(f"{np.mean(found):.3g}" if found else "-")
        scores = Results.load(workdir / RESULTS).scores["codi"][4]
        cells += [f"{scores['psnr'].value:.2f}", f"{scores['swd'].value:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(workdirs: dict[str, Path], path: Path, window: int = 10) -> None:
    """A PNG of each run's terms, moving means over ``window`` lines."""
    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(TERMS))
    for term, axes in zip(TERMS, panels, strict=True):
        for name, workdir in workdirs.items():
            found = [(line["step"], line[term]) for line in lines_of(workdir) if term in line]
            if len(found) < window:
                continue
            steps, values = np.array(found).T
            mean = np.convolve(values, np.ones(window) / window, "valid")
            style = "k-" if name == "healthy" else "-"
            axes.plot(steps[window - 1 :], mean, style, label=name, linewidth=1.2)
        axes.set(title=term, xlabel="step", yscale="log")
    panels[0].legend(fontsize=7)
    save_figure(figure, path)


def main() -> None:
    """Run what is asked for; print the table and draw the curves of what is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--source", default="skimage", help="folder of photos, or skimage")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--variant", default="default", help="of configs/sr.py")
    parser.add_argument("--batch_size", type=int, help="by default that of the variant")
    parser.add_argument("--only", default=",".join(BROKEN), help="names with commas between")
    args = parser.parse_args()
    keep_compiled()
    for name in args.only.split(","):
        config = sr.get_config(args.variant)
        config.batch_size = args.batch_size or config.batch_size
        config.data.source, config.steps, config.log_every = args.source, args.steps, 1
        config.eval.every = config.checkpoint.every = args.steps
        config.eval.beside, config.eval.steps, config.tensorboard = "", (4,), False
        run(name, config, args.workdir / name)
    finished = {n: args.workdir / n for n in BROKEN if (args.workdir / n / RESULTS).exists()}
    print(table(finished, args.steps))
    draw(finished, args.workdir / "unhealthy.png")


if __name__ == "__main__":
    main()

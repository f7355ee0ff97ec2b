"""One training run from its config and workdir: start or resume, train, evaluate, export."""

import sys
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp

from codi_jax import __version__
from codi_jax.checkpoint.directory import save_directory
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.store import Store
from codi_jax.data.pipeline import TrainIterator
from codi_jax.data.transforms import LATENTS
from codi_jax.evals.evaluation import Evaluated, Evaluator
from codi_jax.evals.results import Results, table
from codi_jax.run.config import ConfigDict
from codi_jax.run.data import open_data
from codi_jax.run.plan import plan
from codi_jax.run.prompts import EncodedTexts, encoded_columns
from codi_jax.run.ranges import check_ranges
from codi_jax.run.start import Run, start
from codi_jax.run.workdir import RESULTS, as_started, check_workdir, method_name, write_config
from codi_jax.sampling.load import CHECKPOINTS, MODEL
from codi_jax.sampling.origin import Origin
from codi_jax.train.loop import Loop
from codi_jax.train.metrics import MetricsWriter
from codi_jax.train.rescale import unit_latents
from codi_jax.train.state import TrainState
from codi_jax.typing import Params, UserError


def train(config: ConfigDict, workdir: Path) -> Results:
    """One run from start or last checkpoint to end; returns what it writes to ``results.json``.

    Raises:
        UserError: whatever does not fit, before anything is written; a loss that is not finite.
    """
    config = as_started(config, workdir)
    check_ranges(config)  # an id may be large: nothing is fetched for a config that cannot run
    check_workdir(config, workdir)
    read = config.model.pretrained, config.model.pretrained_adapter, config.model.autoencoder
    for name in read:
        if name:
            checkpoint_path(name)  # an id is fetched here: the plan downloads nothing
    planned = plan(config)
    stream, held_out = open_data(config, planned.task)
    data: TrainIterator | EncodedTexts = stream
    run = start(planned)
    write_config(config, workdir)
    write_origin(run, workdir)
    params0, text = run.params(run.state), run.text
    encoded = encoded_columns(
        config, stream, lambda images: run.encode(params0, images), run.encode_texts
    )
    if run.encode_texts is not None:
        text, data = run.encode_texts(held_out["prompt"]), EncodedTexts(stream, run.encode_texts)
    evaluator = Evaluator(
        planned.model,
        planned.task,
        held_out,
        config.eval.steps,
        workdir / "samples",
        text,
        planned.dtype,
    )
    kept = (
        *planned.task.arrays,
        *(text if run.encode_texts else ()),
        *(name for name in encoded if name == LATENTS),
    )
    first = evaluator(0, params0)
    state, last = _run_loop(run, evaluator, first, data, kept, workdir)
    params = run.params(state)
    # A run that was complete already has not been evaluated by the loop.
    last = last or evaluator(config.steps, params)
    return finish(run, workdir, params, evaluator, first, last)


def write_origin(run: Run, workdir: Path) -> None:
    """Write what loading the unfinished run needs."""
    config = run.plan.config
    origin = Origin(
        pretrained=config.model.pretrained,
        adapter=config.model.pretrained_adapter,
        autoencoder=config.model.autoencoder,
        redraw=("unet", "adapter") if config.model.init == "random" else (),
        seed=config.seed,
        guidance_input=run.plan.model is not run.plan.base,
        trainable=config.model.trainable,
        averages=tuple(run.plan.averages),
        frozen=run.frozen_hash(of_the_model=True),
    )
    origin.write(workdir, run.plan.model)


def restore(
    run: Run, store: Store, data: TrainIterator | EncodedTexts, frozen_hash: str
) -> TrainState:
    """The state of the last checkpoint, or the start's.

    Raises:
        UserError: the frozen parameters are not those of the checkpoint.
    """
    step = store.latest_step()
    if step is None:
        return run.state
    if store.restore_meta(step)["frozen"] != frozen_hash:
        raise UserError(
            "the frozen parameters are not those that this run was started with: "
            "config.model.pretrained has changed on disk. Use another --workdir."
        )
    state = run.state
    items = store.restore(step, {"trainable": state.trainable, "ema": state.ema, "opt": state.opt})
    data.set_state(store.restore_data_state(step))
    print(f"resuming from step {step}", file=sys.stderr)
    counter = jax.device_put(jnp.asarray(step, jnp.int32), state.step.sharding)
    return TrainState(counter, items["trainable"], items["ema"], items["opt"])


def _run_loop(
    run: Run,
    evaluator: Evaluator,
    first: Evaluated,
    data: TrainIterator | EncodedTexts,
    kept: tuple[str, ...],
    workdir: Path,
) -> tuple[TrainState, Evaluated | None]:
    """Train to the end; the last state, and its evaluation if the loop made one."""
    config = run.plan.config
    latest: dict[int, Evaluated] = {}
    frozen_hash = run.frozen_hash()
    with (
        Store(
            workdir / CHECKPOINTS,
            max_to_keep=config.checkpoint.keep,
            save_interval_steps=config.checkpoint.every,
        ) as store,
        closing(data),
    ):
        state = restore(run, store, data, frozen_hash)
        writer = MetricsWriter(workdir, config.tensorboard, start_step=int(state.step))

        def evaluate(step: int, state: TrainState) -> dict[str, float]:
            evaluated = latest[step] = evaluator(step, run.params(state))
            writer.write_images(step, evaluated.pictures)
            return evaluated.scalars

        if int(state.step) == 0:
            writer.write_images(0, first.pictures)
        loop = Loop(
            step=run.step,
            frozen=run.frozen,
            key=run.plan.key,
            data=data,
            keep=kept,
            mesh=run.plan.mesh,
            store=store,
            writer=writer,
            evaluate=evaluate,
            meta={"frozen": frozen_hash, "version": __version__, "jax": jax.__version__},
            steps=config.steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            eval_every=config.eval.every,
        )
        with closing(writer):
            state = loop.run(state)
    return state, latest.get(config.steps)


def finish(
    run: Run,
    workdir: Path,
    params: Params,
    evaluator: Evaluator,
    first: Evaluated,
    last: Evaluated,
) -> Results:
    """Export the model, write and print the results."""
    images = evaluator.batch["image"]
    save_directory(workdir / MODEL, unit_latents(run.plan.model, params, images))
    task = run.plan.task
    method = method_name(run.plan.config) if task.diffuses else task.name
    results = evaluator.results(method, first, last)
    if jax.process_index() == 0:
        results.save(workdir / RESULTS)
        if results.scores:
            print(table(results))
        print(f"model: {workdir / MODEL}   pictures: {workdir / 'samples'}")
    return results

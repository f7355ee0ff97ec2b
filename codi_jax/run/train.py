"""One training run from its config and workdir: start or resume, train, evaluate, export."""

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp

from codi_jax import __version__, trees
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.store import Store
from codi_jax.data.pipeline import TrainIterator
from codi_jax.data.transforms import LATENTS
from codi_jax.evals.evaluation import Beside, Evaluated, Evaluator
from codi_jax.evals.results import Results
from codi_jax.evals.run_report import SAMPLES
from codi_jax.model import AutoencoderModel, Model
from codi_jax.parallel.processes import agreed
from codi_jax.run.config import ConfigDict
from codi_jax.run.data import open_data
from codi_jax.run.finish import finish, write_report
from codi_jax.run.passes import pass_flops
from codi_jax.run.plan import plan
from codi_jax.run.prompts import EncodedTexts, encoded_columns
from codi_jax.run.ranges import check_ranges
from codi_jax.run.start import Run, start
from codi_jax.run.workdir import (
    as_started,
    changed_rate,
    check_workdir,
    locked,
    remove_leftovers,
    saved_config,
    write_config,
)
from codi_jax.sampling.load import CHECKPOINTS, load_model
from codi_jax.sampling.origin import Origin
from codi_jax.train.interrupt import Interrupt
from codi_jax.train.loop import Loop
from codi_jax.train.metrics import TENSORBOARD, MetricsWriter
from codi_jax.train.profile import Profile
from codi_jax.train.state import TrainState
from codi_jax.typing import UserError, check_local


def train(
    config: ConfigDict,
    workdir: Path,
    interrupt: Interrupt | None = None,
    *,
    profile_steps: int = 0,
) -> Results:
    """One run from start or last checkpoint to end; returns what it writes to ``results.json``.

    Args:
        config: of the run.
        workdir: made if need be.
        interrupt: says when a signal asks the run to stop; by default none does.
        profile_steps: so many steps are recorded for TensorBoard.

    Raises:
        UserError: whatever does not fit, before anything is written; losses that are not finite.
        Interrupted: a signal stopped the run.
    """
    check_paths(config, workdir)
    with contextlib.ExitStack() as stack:
        fresh = not agreed(workdir.is_dir())
        if not fresh:  # a new one is made when the run is built
            stack.enter_context(locked(workdir))
        profile = Profile(workdir / TENSORBOARD, profile_steps)
        return _train(config, workdir, interrupt or Interrupt(), profile, stack, fresh)


def check_paths(config: ConfigDict, workdir: Path) -> None:
    """Raises a UserError for a bucket among the paths of a run."""
    check_local("--workdir", workdir)
    for key, value in trees.flatten(config.to_dict()).items():
        if isinstance(value, str):
            check_local(f"config.{key.replace('/', '.')}", value)


def _train(
    config: ConfigDict,
    workdir: Path,
    interrupt: Interrupt,
    profile: Profile,
    stack: contextlib.ExitStack,
    fresh: bool,
) -> Results:
    config = as_started(config, workdir)
    check_ranges(config)  # an id may be large: nothing is fetched for a config that cannot run
    check_workdir(config, workdir)
    saved = saved_config(workdir)
    read = config.model.pretrained, config.model.pretrained_adapter, config.model.autoencoder
    for name in read:
        if name:
            checkpoint_path(name)  # an id is fetched here: the plan downloads nothing
    planned = plan(config)
    beside = finished_model(config.eval.beside, planned.model)
    stream, held_out = open_data(config, planned.task)
    data: TrainIterator | EncodedTexts = stream
    run = start(planned)
    params0, text = run.params(run.state), run.text
    encoded = encoded_columns(
        config, stream, lambda images: run.encode(params0, images), run.encode_texts
    )
    if fresh:
        stack.enter_context(locked(workdir))
    write_config(config, workdir)
    remove_leftovers(workdir)
    write_origin(run, workdir)
    if run.encode_texts is not None:
        text, data = run.encode_texts(held_out["prompt"]), EncodedTexts(stream, run.encode_texts)
    evaluator = Evaluator(
        planned.model,
        planned.task,
        held_out,
        config.eval.steps,
        workdir / SAMPLES,
        text,
        planned.dtype,
        beside,
    )
    kept = (
        *planned.task.arrays,
        *(text if run.encode_texts else ()),
        *(name for name in encoded if name == LATENTS),
    )
    drawn = evaluator.draw(params0)  # before training replaces them; the rest can wait
    first = functools.cache(functools.partial(evaluator.score, 0, drawn))
    state, last = _run_loop(run, evaluator, first, data, kept, workdir, interrupt, profile, saved)
    interrupt.release()
    params = run.params(state)
    # A run that was complete already has not been evaluated by the loop.
    last = last or evaluator(config.steps, params)
    return finish(run, workdir, params, evaluator, first(), last)


def finished_model(name: str, trained: AutoencoderModel) -> Beside | None:
    """The model that is shown beside the one in training.

    Args:
        name: ``config.eval.beside``; "" for none.
        trained: what the run trains.

    Raises:
        UserError: the model is not for the same task.
    """
    if not name:
        return None
    model = load_model(name)
    made_for, wanted = (
        (m.task, m.scale, dict(m.task_options)) if isinstance(m, Model) else None
        for m in (model, trained)
    )
    if not isinstance(model, Model) or model.task is None or made_for != wanted:
        raise UserError(
            f"config.eval.beside={name!r} is a model for {made_for}, and this run trains one for "
            f"{wanted}: name a finished model of the same task, or set config.eval.beside=''."
        )
    return Beside(name=Path(name).name, model=model)


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
    step = store.newest_whole()
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
    first: Callable[[], Evaluated],
    data: TrainIterator | EncodedTexts,
    kept: tuple[str, ...],
    workdir: Path,
    interrupt: Interrupt,
    profile: Profile,
    saved: Mapping[str, object],
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
        rates = changed_rate(saved, config, int(state.step))
        if rates and jax.process_index() == 0:
            print(rates, file=sys.stderr)
        writer = MetricsWriter(workdir, config.tensorboard, start_step=int(state.step))

        def evaluate(step: int, state: TrainState) -> dict[str, float]:
            evaluated = latest[step] = evaluator(step, run.params(state))
            writer.write_images(step, evaluated.pictures)
            write_report(run, workdir, now={step: evaluated.scalars})
            return evaluated.scalars

        fresh = int(state.step) == 0
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
            meanwhile=lambda: writer.write_images(0, first().pictures) if fresh else None,
            meta={"frozen": frozen_hash, "version": __version__, "jax": jax.__version__},
            steps=config.steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            eval_every=config.eval.every,
            interrupt=interrupt,
            needed_flops=(lambda: run.plan.needed_flops) if run.plan.recomputes else None,
            pass_flops=lambda: pass_flops(run.plan),
            profile=profile,
        )
        with closing(writer):
            state = loop.run(state)
    return state, latest.get(config.steps)

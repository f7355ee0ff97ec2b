"""One training run from its config and workdir: start or resume, train, evaluate, export."""

import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from codi_jax import __version__, trees
from codi_jax.builder import Run, build_run
from codi_jax.checkpoint.directory import save_pipeline
from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.checkpoint.store import Store
from codi_jax.data.transforms import LATENTS
from codi_jax.evals.evaluation import Evaluator, table, task_results
from codi_jax.feed import EncodedTexts, build_data, encoded_columns
from codi_jax.train.loop import Loop
from codi_jax.train.metrics import MetricsWriter
from codi_jax.train.rescale import unit_latents
from codi_jax.train.state import TrainState
from codi_jax.typing import UserError

#: Keys that may differ when a run is resumed: they change how long and how it is watched.
FREE = {
    *("steps", "log_every", "eval", "checkpoint", "tensorboard", "mesh"),
    *("data.num_workers", "data.max_corrupt"),
}


def check_workdir(config: ConfigDict, workdir: Path) -> None:
    """Write ``config.json``, or hold the config against the one that is there.

    Raises:
        UserError: the workdir belongs to another config.
    """
    path = workdir / "config.json"
    new = config.to_dict()
    if path.exists():
        old = load_json(path)
        flat_old, flat_new = _flat_config(old), _flat_config(new)
        differing = [
            f"{key} ({flat_old.get(key)!r} there, {flat_new.get(key)!r} now)"
            for key in sorted({*flat_old, *flat_new})
            if flat_old.get(key) != flat_new.get(key) and not FREE & {key, key.split(".")[0]}
        ]
        if differing:
            raise UserError(
                f"{workdir} holds a run of another config: {'; '.join(differing[:3])}. "
                "Use another --workdir, or the config of that run."
            )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        save_json(path, new)


def restore(run: Run, store: Store, data: Any, frozen_hash: str) -> TrainState:
    """The state of the last checkpoint, or the start's."""
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
    counter = jax.device_put(jax.numpy.asarray(step, jax.numpy.int32), state.step.sharding)
    return TrainState(counter, items["trainable"], items["ema"], items["opt"])


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """One run from start or last checkpoint to end; returns the content of ``results.json``."""
    check_workdir(config, workdir)
    data, held_out = build_data(config)
    run = build_run(config)
    pipeline, params0 = run.pipeline, run.params(run.state)
    text = run.text
    encoded = encoded_columns(
        config,
        data,
        lambda images: run.encode(params0, jax.numpy.asarray(images)),
        run.encode_texts,
    )
    if run.encode_texts is not None:
        text, data = run.encode_texts(held_out["prompt"]), EncodedTexts(data, run.encode_texts)
    evaluator = Evaluator(
        pipeline, held_out, config.eval.steps, workdir / "samples", text, run.dtype
    )
    frozen_hash = trees.tree_hash(run.frozen) if run.frozen else ""
    with Store(
        workdir / "checkpoints",
        max_to_keep=config.checkpoint.keep,
        save_interval_steps=config.checkpoint.every,
    ) as store:
        start = evaluator(0, params0)
        state = restore(run, store, data, frozen_hash)
        writer = MetricsWriter(workdir, config.tensorboard, start_step=int(state.step))

        latest: dict[int, Any] = {}

        def evaluate(step: int, state: TrainState) -> dict[str, float]:
            scores = latest[step] = evaluator(step, run.params(state))
            return {f"eval_{n}/{name}": v for n, s in scores.items() for name, v in s.items()}

        loop = Loop(
            step=run.step,
            frozen=run.frozen,
            key=run.key,
            data=data,
            keep=(
                *evaluator.task.arrays,
                *(text if run.encode_texts else ()),
                *(name for name in encoded if name == LATENTS),
            ),
            mesh=run.mesh,
            store=store,
            writer=writer,
            evaluate=evaluate,
            meta={"frozen": frozen_hash, "version": __version__, "jax": jax.__version__},
            steps=config.steps,
            batch_size=config.batch_size,
            log_every=config.log_every,
            eval_every=config.eval.every,
        )
        try:
            state = loop.run(state)
        finally:
            writer.close()
            data.close()
    # A run that was complete already has not been evaluated by the loop.
    params = run.params(state)
    scores = latest.get(config.steps) or evaluator(config.steps, params)
    return finish(config, workdir, pipeline, params, evaluator, start, scores)


def finish(
    config: ConfigDict,
    workdir: Path,
    pipeline: Pipeline,
    params: Any,
    evaluator: Evaluator,
    start: dict[str, Any],
    scores: dict[str, Any],
) -> dict[str, Any]:
    """Export the model, write and print the results."""
    batch = evaluator.batch
    save_pipeline(workdir / "model", unit_latents(pipeline, params, batch["image"]))
    images = len(batch["image"])
    if evaluator.task.conditional:
        results = task_results(config.task, evaluator.baselines(), start, scores, images)
    else:
        results = {"task": config.task, "images": images, "metrics": scores}
    if jax.process_index() == 0:
        save_json(workdir / "results.json", results)
        if results["metrics"]:
            print(table(results))
        print(f"model: {workdir / 'model'}   pictures: {workdir / 'samples'}")
    return results


def _flat_config(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat_config(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat

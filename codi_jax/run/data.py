"""A run's data: what its task reads, for training and for the pictures that are shown."""

import copy

import jax
import numpy as np
from jaxtyping import UInt8

from codi_jax.data.charts import ReplaceByChart
from codi_jax.data.pipeline import Batch, TrainIterator, Transforms, eval_batch, train_iterator
from codi_jax.data.sources import SkippingSource, cached, check_source, make_source
from codi_jax.data.transforms import ENCODED, Drop, FillPrompt, Keep, prompts_differ
from codi_jax.parallel.platform import cache_folder
from codi_jax.run.config import ConfigDict
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError


def transforms(config: ConfigDict, task: Task, size: int, *, train: bool = False) -> Transforms:
    """The task's, of ``size`` pixels; then prompts, and nothing is left that is not used."""
    encoded = ENCODED if train and config.data.encoded else ()
    prompt = FillPrompt(config.model.prompt, config.data.prompt_dropout if train else 0.0)
    filled = [prompt] if prompts_differ(config.model.prompt) else []
    first = [] if encoded else [Drop(ENCODED)]
    charts = _charts(config.data.chart_share, task, size) if train else []
    return [
        *first,
        *charts,
        *task.transforms(size, train=train),
        *filled,
        Keep((*task.arrays, *encoded)),
    ]


def _charts(share: float, task: Task, size: int) -> list[ReplaceByChart]:
    """What puts colour charts among the training pictures, if there are to be any.

    Raises:
        UserError: no share, or a task whose pictures have maps.
    """
    if not 0 <= share <= 1:
        raise UserError(f"config.data.chart_share={share}: give a share, 0 to 1.")
    if share and task.aligned != ("image",):
        raise UserError(
            f"config.data.chart_share={share}, but the task {task.name} reads "
            f"{', '.join(task.aligned)} and charts are pictures alone: set it to 0."
        )
    return [ReplaceByChart(share, size)] if share else []


def first_pictures(
    config: ConfigDict, task: Task, count: int
) -> UInt8[np.ndarray, "count height width 3"]:
    """The first ``count`` training crops, without charts."""
    config = copy.deepcopy(config)
    config.data.chart_share = 0.0
    source = SkippingSource(make_source(config.data.source, "train"), config.data.max_corrupt)
    crops = transforms(config, task, config.data.size, train=True)
    iterator = train_iterator(source, crops, batch_size=count, seed=config.seed, num_workers=0)
    try:
        return next(iterator)["image"]
    finally:
        iterator.close()


def open_data(config: ConfigDict, task: Task) -> tuple[TrainIterator, Batch]:
    """The training iterator and the fixed evaluation batch.

    Raises:
        UserError: a source that does not exist or has no image, or images that cannot be read.
    """
    data = config.data
    source = make_source(data.source, "train")
    held_out = make_source(data.eval_source or data.source, "eval")
    image_bytes = check_source(source, data.max_corrupt)
    source = cached(
        source,
        data.cache,
        label=data.source,
        max_gb=data.cache_gb,
        reads=config.steps * config.batch_size,
        image_bytes=image_bytes,
        disk=cache_folder("decoded"),
    )
    check_source(held_out, data.max_corrupt)
    iterator = train_iterator(
        SkippingSource(source, data.max_corrupt),
        transforms(config, task, data.size, train=True),
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        num_workers=data.num_workers,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    shown = eval_batch(
        SkippingSource(held_out, data.max_corrupt),
        transforms(config, task, config.eval.size),
        config.eval.count,
        config.seed,
    )
    return iterator, shown

"""A run's data: what its task reads, for training and for the pictures that are shown."""

import jax

from codi_jax.data.pipeline import Batch, TrainIterator, Transforms, eval_batch, train_iterator
from codi_jax.data.sources import SkippingSource, check_source, make_source
from codi_jax.data.transforms import ENCODED, Drop, FillPrompt, Keep, prompts_differ
from codi_jax.run.config import ConfigDict
from codi_jax.tasks.base import Task


def transforms(config: ConfigDict, task: Task, size: int, *, train: bool = False) -> Transforms:
    """The task's, of ``size`` pixels; then prompts, and nothing is left that is not used."""
    encoded = ENCODED if train and config.data.encoded else ()
    prompt = FillPrompt(config.model.prompt, config.data.prompt_dropout if train else 0.0)
    filled = [prompt] if prompts_differ(config.model.prompt) else []
    first = [] if encoded else [Drop(ENCODED)]
    return [*first, *task.transforms(size, train=train), *filled, Keep((*task.arrays, *encoded))]


def open_data(config: ConfigDict, task: Task) -> tuple[TrainIterator, Batch]:
    """The training iterator and the fixed evaluation batch.

    Raises:
        UserError: a source that does not exist or has no image, or images that cannot be read.
    """
    data = config.data
    source = make_source(data.source, "train")
    held_out = make_source(data.eval_source or data.source, "eval")
    check_source(source, data.max_corrupt)
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

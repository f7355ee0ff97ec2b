"""What a run is fed by its config: the task's data, and the prompts."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.checkpoint.prompts import PromptEncoder
from codi_jax.data.charts import ReplaceByChart
from codi_jax.data.pipeline import eval_batch, train_iterator
from codi_jax.data.sources import SkippingSource, check_source, make_source
from codi_jax.data.transforms import ENCODED, LATENTS, PROMPTS, Drop, FillPrompt, Keep
from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_from_config
from codi_jax.typing import Array, UserError

#: ``texts(prompts) -> condition entries`` [len(prompts), ...].
TextFn = Callable[[Sequence[str]], dict[str, Any]]
#: uint8 [B, H, W, 3] -> latents.
PictureFn = Callable[[Array | np.ndarray], Array]


def build_task(config: ConfigDict) -> Task:
    """The task, with its options.

    Raises:
        UserError: an unknown task or option.
    """
    return task_from_config(config.task, config.task_options.to_dict(), config.data.to_dict())


def transforms(config: ConfigDict, size: int, *, train: bool = False) -> list:
    """The task's, of ``size`` pixels; then prompts, and nothing is left that is not used."""
    task = build_task(config)
    encoded = ENCODED if train and config.data.encoded else ()
    prompt = FillPrompt(config.model.prompt, config.data.prompt_dropout if train else 0.0)
    filled = [prompt] if prompts_differ(config.model.prompt) else []
    first: list[Any] = [] if encoded else [Drop(ENCODED)]
    if train:
        first += charts(config.data.get("chart_share", 0.0), task, size)
    return [*first, *task.transforms(size, train=train), *filled, Keep((*task.arrays, *encoded))]


def charts(share: float, task: Task, size: int) -> list[ReplaceByChart]:
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


def first_pictures(config: ConfigDict, count: int) -> np.ndarray:
    """``count`` training crops, without charts: uint8 [count, size, size, 3]."""
    config = copy.deepcopy(config)
    config.data.chart_share = 0.0
    source = SkippingSource(make_source(config.data.source, "train"), config.data.max_corrupt)
    crops = transforms(config, config.data.size, train=True)
    iterator = train_iterator(source, crops, batch_size=count, seed=config.seed, num_workers=0)
    try:
        return next(iterator)["image"]
    finally:
        iterator.close()


def build_data(config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The training iterator and the fixed evaluation batch."""
    data = config.data
    source = make_source(data.source, "train")
    held_out = make_source(data.eval_source or data.source, "eval")
    check_source(source, data.max_corrupt)
    check_source(held_out, data.max_corrupt)
    iterator = train_iterator(
        SkippingSource(source, data.max_corrupt),
        transforms(config, data.size, train=True),
        batch_size=config.batch_size // jax.process_count(),
        seed=config.seed,
        num_workers=data.num_workers,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    shown = eval_batch(
        SkippingSource(held_out, data.max_corrupt),
        transforms(config, config.eval.size),
        config.eval.count,
        config.seed,
    )
    return iterator, shown


def prompts_differ(prompt: str) -> bool:
    """Whether ``config.model.prompt`` has columns of the data in it, such as "{text}"."""
    return "{" in prompt


def encode_prompt(
    config: ConfigDict, pipeline: Pipeline
) -> tuple[dict[str, Any], dict[str, Any], TextFn | None]:
    """What the U-Net reads of ``config.model.prompt``, and of no prompt; and where the prompts
    differ, nothing of the first but what encodes them. The text encoder is kept only then."""
    if not pipeline.takes_text:
        return {}, {}, None
    if pipeline.directory is None:
        raise UserError(
            "config.model.unet has a cross_attention_dim, but without config.model.pretrained "
            "there is no text encoder: set cross_attention_dim to None."
        )
    encoder, side = PromptEncoder(pipeline.directory), config.data.size

    def complete(text: dict[str, Any]) -> dict[str, Any]:
        if "text_embeds" in text:
            ids = jnp.asarray([[side, side, 0, 0, side, side]], jnp.float32)
            text["time_ids"] = jnp.tile(ids, (len(text["text"]), 1))
        return text

    null = complete(encoder.negative(None))
    if prompts_differ(config.model.prompt):
        return {}, null, lambda prompts: complete(encoder(prompts))
    return complete(encoder([config.model.prompt])), null, None


class EncodedTexts:
    """The data's batches with their prompts encoded, over the strings of the same names."""

    def __init__(self, data: Any, encode: TextFn) -> None:
        self._data, self._encode = data, encode

    def __next__(self) -> dict[str, Any]:
        batch = next(self._data)
        if PROMPTS["text"] not in batch:
            return {**batch, **self._encode([*batch["prompt"]])}
        entries = {}
        for name, empty in self._empty.items():
            own = batch.get(PROMPTS.get(name), empty)
            dropped = (batch["prompt"] == "").reshape(-1, *[1] * (empty.ndim - 1))
            entries[name] = np.where(dropped, empty, own)
        return {**batch, **entries}

    @functools.cached_property
    def _empty(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self._encode([""]).items()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)  # the position, and how to close it


def encoded_columns(
    config: ConfigDict, data: Any, encode_picture: PictureFn, encode_texts: TextFn | None
) -> tuple[str, ...]:
    """The columns of ``prepare --latents --embeddings`` that the data brings, held against what
    this run's networks make of the first batch; () without ``config.data.encoded``.

    Raises:
        UserError: none is there, or they are of other networks or other pictures.
    """
    if not config.data.encoded:
        return ()
    position = data.get_state()
    batch = next(data)
    data.set_state(position)
    columns = tuple(name for name in ENCODED if name in batch)
    if not columns:
        raise UserError(
            f"config.data.encoded=True, but {config.data.source} has none of "
            f"{', '.join(ENCODED)}: make them by `python -m codi_jax.prepare --latents`."
        )
    if LATENTS in columns:
        _check_close(LATENTS, batch[LATENTS][:1], encode_picture(batch["image"][:1]))
    if PROMPTS["text"] in columns:
        if encode_texts is None or config.model.prompt != "{text}":
            raise UserError(
                f"the data brings {PROMPTS['text']}, of captions: they are for a U-Net that reads "
                f"text, and config.model.prompt='{{text}}' ({config.model.prompt!r} now)."
            )
        made = encode_texts([str(batch["text"][0])])["text"]
        _check_close(PROMPTS["text"], batch[PROMPTS["text"]][:1], made)
    return columns


def _check_close(name: str, stored: np.ndarray, made: Any) -> None:
    made = np.asarray(made, np.float32)
    # Of the same networks they differ by the rounding to float16, or to bfloat16 here.
    if made.shape != stored.shape or np.abs(made - stored).mean() > 0.03 * np.abs(made).mean():
        raise UserError(
            f"the data's {name} {stored.shape[1:]} are not what this run's networks make of the "
            f"first picture, {made.shape[1:]}: they are of another checkpoint, or the task changes "
            "the picture. Prepare them with this one, or set config.data.encoded=False."
        )

"""A model's results on held-out data, as files: what `codi_jax.evaluate` scores."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from jax.experimental import multihost_utils
from jaxtyping import Array, Int, Shaped, UInt8

from codi_jax import trees
from codi_jax.data.pipeline import eval_samples
from codi_jax.data.sources import check_source, make_source
from codi_jax.data.transforms import ENCODED, Drop, FillPrompt, prompts_differ
from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.sampling import held_out_files
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.sampler import Sampler
from codi_jax.tasks.base import Example, Task
from codi_jax.tasks.registry import task_class, task_from_config
from codi_jax.typing import Settings, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a model is evaluated on.

    Attributes:
        source: as ``config.data.source``, of which the held-out part is taken.
        count: number of images; beyond those of the source there are further crops and
            degradations of them.
        crop: side of the crops in pixels; 0 for whole frames.
        degradation: as ``config.data.degradation``, for tasks that have one; "bicubic" if None.
        seed: of crops, degradations, holes and noise.
        prompt: for models that take text: one for all images, or with columns of the data, as
            in ``config.model.prompt``.
        solver: one of `SOLVERS`; "" for the model's own sampler.
        task_options: as ``config.task_options``, in addition to those that travel with the model.
    """

    source: str = "skimage"
    count: int | None = None
    crop: int = 0
    degradation: str | None = None
    seed: int = 0
    prompt: str = ""
    solver: str = ""
    task_options: Settings = dataclasses.field(default_factory=dict, metadata={"flag": False})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
    """What was made; the pictures are in files.

    Attributes:
        task: the model's.
        setting: with the count.
        examples: item n is what image n was made of, the task's arrays and strings.
    """

    task: Task
    setting: Setting
    examples: held_out_files.Examples


def degrades(task: type[Task]) -> bool:
    """Whether a task makes its inputs by a degradation."""
    return "degradation" in {field.name for field in dataclasses.fields(task)}


def _with_degradation(setting: Setting, task: str) -> Setting:
    """``setting`` with the degradation that the task's inputs are made by, if it has one."""
    if degrades(task_class(task)):
        return dataclasses.replace(setting, degradation=setting.degradation or "bicubic")
    if setting.degradation is not None:
        raise UserError(
            f"--degradation={setting.degradation}: a model for {task} has none, leave it out."
        )
    return setting


def check_measures(task: Task, example: Example) -> None:
    """Hold what a task scores against what it declares, before anything is made.

    Raises:
        UserError: a measure that is not declared.
    """
    batch = held_out_files.batch_of_one(example)
    undeclared = {*task.score(batch["image"], batch)} - {*task.measures}
    if undeclared:
        raise UserError(
            f"the task {task.name} scores {', '.join(sorted(undeclared))}, of which its `measures` "
            "do not say whether more is better: add them there."
        )


def share(count: int) -> range:
    """This process's part of ``count`` images."""
    return range(jax.process_index(), count, jax.process_count())


def sample_held_out(
    checkpoint: str, setting: Setting, steps: Sequence[int], batch_size: int, folder: Path
) -> Sampled:
    """Write the model's images to ``folder`` (every process its share), and wait for all.

    Raises:
        UserError: there is no model, or it takes no condition; a degradation for a task that has
            none; a measure that is not declared; images of another evaluation in ``folder``;
            data without what the task reads.
    """
    sampler = Sampler.load(checkpoint)
    model = sampler.model
    if model.task is None:
        raise UserError(
            f"--checkpoint {checkpoint} is a prior, a model for no task: make pictures with it by "
            "`python -m codi_jax.sample`, and score their folder by --images."
        )
    solver = SamplerConfig(solver=setting.solver) if setting.solver else model.sampler.usable()
    setting = _with_degradation(setting, model.task)
    options = {**model.task_options, **setting.task_options}
    data = {"scale": model.scale, "degradation": setting.degradation}
    task = task_from_config(model.task, options, data)
    source = make_source(setting.source, "eval")
    check_source(source)
    setting = dataclasses.replace(setting, count=setting.count or len(source))
    own_prompts = prompts_differ(setting.prompt)
    framed = task.transforms(setting.crop, train=False) if setting.crop else task.whole_frames()
    filled = [FillPrompt(setting.prompt)] if own_prompts else []
    examples = eval_samples(source, [Drop(ENCODED), *framed, *filled], setting.seed)
    check_measures(task, examples[0])
    # By content: the same workdir holds another model after more training.
    content = trees.tree_hash(sampler.params)
    manifest = {"model": content, "scale": model.scale, **dataclasses.asdict(setting)}
    held_out_files.check_manifest(folder, manifest)

    devices = Devices(batch_size)
    sampler.params = devices.replicate(sampler.params)
    key_of = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(setting.seed)))

    @functools.lru_cache(maxsize=1)  # one prompt for all, or a batch's for every number of steps
    def encode(prompts: tuple[str, ...]) -> GuidedCondition:
        return GuidedCondition(cond=sampler.encode_prompt(prompts) if model.takes_text else {})

    def make(
        arrays: Mapping[str, Shaped[Array, "batch ..."]],
        indices: Int[Array, " batch"],
        prompts: Sequence[str],
        n: int,
    ) -> UInt8[Array, "batch height width 3"]:
        text = encode(tuple(prompts) if own_prompts else (setting.prompt,))
        return sampler.conditional(arrays, key_of(indices), n, text, solver)

    indices = share(setting.count or 0)
    held_out_files.write_results(folder, task, examples, indices, steps, make, devices)
    multihost_utils.sync_global_devices("sampled")
    return Sampled(task=task, setting=setting, examples=examples)

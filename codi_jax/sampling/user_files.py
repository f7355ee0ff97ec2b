"""The user's files in, pictures out: what `codi_jax.sample` does."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from codi_jax import __version__
from codi_jax.data.decoding import stored_size
from codi_jax.parallel.platform import keep_compiled
from codi_jax.sampling.file_plan import STDIN, STDOUT, FilePlan, Job, Naming, plan_files
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.picture_formats import check_fits, encode, write
from codi_jax.sampling.recipe import Options, Recipe
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.sizing import Sizing
from codi_jax.sampling.tiling import Tiling
from codi_jax.sampling.user_pictures import UserPicture, from_array
from codi_jax.tasks.registry import trust_task
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Which model makes pictures of which files.

    Attributes:
        checkpoint: a workdir, a model directory or its Hugging Face id, or "demo".
        input: pictures, folders or patterns, as the arguments without a flag are, too; - is
            standard input. Without any a prior makes a picture from noise.
        mask: for inpainting, an image that is white where to fill, or a folder that has one of
            the same name for each input.
        steps: number of sampling steps; by default 4 with an input, else 50.
        solver: name of another solver than the model's own.
        seed: of the noise.
        task_module: the model's task, module:Class, if it is one of your own; its code is run.
        inputs: the arguments without a flag.
    """

    checkpoint: str = "demo"
    input: str | None = None
    mask: Path | None = None
    steps: int | None = None
    solver: str | None = None
    seed: int = 0
    task_module: str | None = None
    inputs: tuple[str, ...] = dataclasses.field(default=(), metadata={"flag": False})

    @property
    def words(self) -> list[str]:
        """All inputs."""
        return [*self.inputs, *([] if self.input is None else [self.input])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of the files.

    Attributes:
        text: what was written.
        failures: a line for each picture that could not be made.
    """

    text: str
    failures: tuple[str, ...] = ()


def make_files(
    request: Request,
    guidance: Guidance,
    naming: Naming | None = None,
    sizing: Sizing | None = None,
    tiling: Tiling | None = None,
) -> Report:
    """Make the pictures.

    What is asked for is checked before the model is loaded. A picture that cannot be read or made
    is reported, and the others are made.

    Raises:
        UserError: something that is asked for cannot be.
    """
    naming, sizing, tiling = naming or Naming(), sizing or Sizing(), tiling or Tiling()
    if request.task_module:
        trust_task(request.task_module)
    options: dict[str, Any] = {
        **{name: getattr(request, name) for name in ("steps", "solver", "seed")},
        **dataclasses.asdict(guidance),
    }
    # What is not given has its default there: with an input other ones than without.
    options = {name: value for name, value in options.items() if value is not None}
    if not request.words:
        return _from_noise(request, options, naming, sizing, tiling)
    plan = plan_files(request.words, request.mask, naming)
    if not plan.jobs:
        return Report(text=_summary(plan, 0, naming))
    sampler = _load(request, tiling)
    recipe = sampler.recipe(**cast(Options, {**options, **dataclasses.asdict(sizing)}))
    settings = {**settings_of(request.checkpoint, sampler), **options, "steps": recipe.steps}
    return _make_all(plan, naming, sampler, recipe, settings)


def _load(request: Request, tiling: Tiling) -> Sampler:
    keep_compiled()
    return Sampler.load(request.checkpoint, tile=tiling.tile, max_memory=tiling.max_memory)


def settings_of(checkpoint: str, sampler: Sampler) -> dict[str, Any]:
    """What a PNG says of how it was made, beside the options."""
    return {"version": __version__, "model": checkpoint, "task": sampler.model.task}


def _make_all(
    plan: FilePlan,
    naming: Naming,
    sampler: Sampler,
    recipe: Recipe,
    settings: Mapping[str, Any],
) -> Report:
    failures: list[str] = []
    with _Bar(plan.jobs) as bar:
        for number, job in enumerate(plan.jobs):
            try:
                source = sys.stdin.buffer.read() if job.source == STDIN else job.source
                told = bar.of(number)
                result = sampler.make(source, job.mask, recipe, told, check=_fits(naming))
                _put(job.target, result, naming, settings)
                if result.frames > 1:
                    bar.write(f"{job.source}: the first of {result.frames} frames is taken")
            except UserError as error:
                failures.append(_named(job, error))
            bar.done(number)
    text = _summary(plan, len(plan.jobs) - len(failures), naming)
    return Report(text=text, failures=(*failures,))


def _fits(naming: Naming) -> Callable[[int, int], None]:
    return lambda height, width: check_fits(naming.written_as, height, width)


def _named(job: Job, error: UserError) -> str:
    """The message, with the name of the picture that it is about."""
    message = str(error)
    return message if str(job.source) in message else f"{job.source}: {message}"


def _summary(plan: FilePlan, made: int, naming: Naming) -> str:
    text = f"{made} image{'s' * (made != 1)} written to {naming.output}"
    return text + (f", {len(plan.skipped)} skipped that were there" if plan.skipped else "")


def _put(target: Path, picture: UserPicture, naming: Naming, settings: Mapping[str, Any]) -> None:
    data = encode(picture, naming.written_as, naming.quality, settings)
    if target == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write(target, data, replace=naming.existing == "overwrite")


def _from_noise(
    request: Request, options: dict[str, Any], naming: Naming, sizing: Sizing, tiling: Tiling
) -> Report:
    weight = options.pop("image_guidance_scale")
    if weight != 1.0:
        raise UserError(f"--image_guidance_scale={weight} weighs a picture: give one by --input.")
    if request.mask is not None:
        raise UserError(f"--mask={request.mask} belongs to a picture: give one by --input.")
    size = sizing.exact()
    plan = plan_files([], None, naming, noise_name=f"seed_{request.seed}")
    if not plan.jobs:
        return Report(text=_summary(plan, 0, naming))
    sampler = _load(request, tiling)
    with _Bar(()) as bar:
        picture = sampler.generate(
            size=size, progress=lambda p: bar.of(0)(p.tiles, p.of), **options
        )
    settings = {**settings_of(request.checkpoint, sampler), **options}
    target = plan.jobs[0].target
    _put(target, from_array(np.asarray(picture)), naming, settings)
    return Report(text=f"written: {target}")


class _Bar:
    """Progress on standard error: pictures, tiles, and the time that is left.

    A picture counts as much as it has pixels.

    Args:
        jobs: the pictures; none for one from noise.
    """

    def __init__(self, jobs: tuple[Job, ...]):
        self._count = max(1, len(jobs))
        shown = sys.stderr.isatty()
        self._weights = [_pixels(job) if shown else 1.0 for job in jobs] or [1.0]
        total = sum(self._weights)
        self._weights = [weight / total for weight in self._weights]
        self._starts = [0.0, *itertools.accumulate(self._weights)]
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        self._bar = tqdm(total=1.0, bar_format=form, disable=not shown)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def of(self, number: int) -> Callable[[int, int], None]:
        """What is told of the tiles of a picture."""

        def told(tiles: int, of: int) -> None:
            self._bar.set_description_str(
                f"picture {number + 1}/{self._count}, tiles {tiles}/{of}", refresh=False
            )
            self._to(self._starts[number] + self._weights[number] * tiles / of)

        return told

    def done(self, number: int) -> None:
        """A picture is done, or cannot be made."""
        self._to(self._starts[number] + self._weights[number])

    def _to(self, share: float) -> None:
        self._bar.update(max(0.0, share - self._bar.n))

    def write(self, line: str) -> None:
        """A line beside the bar."""
        self._bar.write(line, file=sys.stderr)


def _pixels(job: Job) -> float:
    """How many pixels a picture has, by its header; 1 where that cannot be known yet."""
    if job.source == STDIN:
        return 1.0
    try:
        height, width = stored_size(job.source)
    except UserError:
        return 1.0
    return float(height * width)

"""Checkpoints in and out of this package, all in diffusers' format.

    python -m codi_jax.convert inspect stabilityai/stable-diffusion-2-1
    python -m codi_jax.convert import stabilityai/stable-diffusion-2-1 models/sd
    python -m codi_jax.convert import sd15.safetensors models/sd15 --tokenizer T
    python -m codi_jax.convert export runs/sr models/my_sr --dtype float16

`inspect` says what a checkpoint is and what it can be used for. A source is what `sample` takes as
--checkpoint: "demo", a run's workdir, a directory in diffusers' format or a Hugging Face id;
`inspect` and `import` also take a single .safetensors file. A target is a new directory.
"""

from pathlib import Path

from codi_jax.checkpoint.ldm_families import FAMILIES
from codi_jax.checkpoint.ldm_noise import PREDICTION_TYPES
from codi_jax.checkpoint.single_file import Reading
from codi_jax.cli import app
from codi_jax.cli import flags as dataclass_flags
from codi_jax.sampling.conversion import DTYPES, Conversion, export_model, import_checkpoint
from codi_jax.sampling.inspection import inspect
from codi_jax.typing import UserError

_USAGE = "give inspect SOURCE, import SOURCE TARGET or export SOURCE TARGET; see --help."


def define_flags() -> None:
    """The flags of this command."""
    dataclass_flags.define(Conversion, {"dtype": DTYPES})
    choices = {"family": tuple(FAMILIES), "prediction_type": PREDICTION_TYPES}
    dataclass_flags.define(Reading, choices)


def run(arguments: list[str]) -> None:
    """Inspect, import or export."""
    options, reading = dataclass_flags.read(Conversion), dataclass_flags.read(Reading)
    match arguments:
        case ["inspect", source]:
            print(inspect(source, reading))
        case ["import", source, target]:
            print(import_checkpoint(source, Path(target).expanduser(), options, reading))
        case ["export", source, target]:
            print(export_model(source, Path(target).expanduser(), options))
        case _:
            raise UserError(_USAGE)


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__, arguments=True)


if __name__ == "__main__":
    main()

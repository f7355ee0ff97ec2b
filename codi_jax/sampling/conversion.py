"""Importing and exporting checkpoints: what `codi_jax.convert` does."""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.directory import INDEX, read_directory, save_directory
from codi_jax.checkpoint.files import load_json
from codi_jax.checkpoint.hub import SHIPPED, checkpoint_path, resolve
from codi_jax.checkpoint.pipelines import NO_PIPELINE
from codi_jax.checkpoint.single_file import Reading, convert_single_file
from codi_jax.model import AutoencoderModel, Model
from codi_jax.sampling.card import CARD, Facts, facts_of_run, public_name, write_card
from codi_jax.sampling.load import CHECKPOINTS, find, load_model
from codi_jax.typing import UserError

DTYPES = ("float32", "float16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a checkpoint is written.

    Attributes:
        dtype: of the written weights; those of a single file keep theirs.
        tokenizer: folder of a tokenizer, for a single file, which has none.
        license: what the model card of an export says, e.g. "openrail++"; by default, that nobody
            has said it.
    """

    dtype: str = "float32"
    tokenizer: str | None = None
    license: str = ""


def import_checkpoint(
    source: str,
    target: Path,
    options: Conversion,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> str:
    """Fetch, convert and check a model.

    Args:
        source: whatever `sample` takes as a checkpoint, or a single ``.safetensors`` file.
        target: a directory that does not exist or is empty.
        options: how it is written.
        reading: what is known of a single file.

    Returns:
        A note on what was written, and on what was guessed.

    Raises:
        UserError: the source cannot be read, or the target is in use.
    """
    _check_empty(target)
    path = find_checkpoint(source)
    if path.is_file():
        note = convert_single_file(path, target, reading=reading, tokenizer=options.tokenizer)
        read_directory(target)  # what was written is what the rest of the package reads
        return note
    if reading != Reading() or options.tokenizer:
        raise UserError(
            "--tokenizer and --family, --prediction_type, --zero_terminal_snr, --text_layers, "
            f"--ema are for single files alone, and {source} is a directory: leave them out."
        )
    model = load_model(source)
    save_directory(target, model, dtype=options.dtype)
    return f"{source} -> {target}: {kind_of(model)}"


def export_model(source: str, target: Path, options: Conversion) -> str:
    """Write the model of a run, or of a directory, for PyTorch diffusers, with a model card.

    Args:
        source: whatever `sample` takes as a checkpoint.
        target: a directory that does not exist or is empty.
        options: how it is written.

    Returns:
        A note on how it is used there.

    Raises:
        UserError: the source cannot be read, or the target is in use.
    """
    _check_empty(target)
    model = load_model(source)
    save_directory(target, model, dtype=options.dtype)
    name = load_json(target / INDEX)["_class_name"]
    write_card(target, model, _facts(source, options.license), _python(name, target.name))
    return f"written: {target}, with a model card, {CARD}\nin PyTorch: {_python(name, str(target))}"


def _python(name: object, directory: str) -> str:
    """How PyTorch loads a directory whose index names the class ``name``."""
    if name == NO_PIPELINE:
        unet = f"diffusers.UNet2DConditionModel.from_pretrained({directory!r}, subfolder='unet')"
        return f"{unet}, and so each part"
    trust = ", trust_remote_code=True" if isinstance(name, list) else ""
    return f"diffusers.DiffusionPipeline.from_pretrained({directory!r}{trust})"


def _facts(source: str, license: str) -> Facts:
    path = checkpoint_path(source)
    # A finished run's model may be named itself: what is known of it is beside it.
    run = path.parent if (path.parent / CHECKPOINTS).is_dir() else path
    if find(path) == "model" and run == path:
        return Facts(base=public_name(source), license=license)
    return facts_of_run(run, license=license)


def find_checkpoint(name: str) -> Path:
    """The path of what the user names, single files among it; an id is fetched."""
    return checkpoint_path(name) if name in SHIPPED else resolve(name)


def kind_of(model: AutoencoderModel) -> str:
    """What a model is, for people."""
    if not isinstance(model, Model):
        return "an autoencoder"
    if model.task:
        return f"a model for {model.task} x{model.scale}, adapter {model.network.adapter.kind}"
    unet = model.network.unet
    kind = "text-to-image" if model.takes_text else "unconditional"
    if unet.in_channels != unet.out_channels:  # it reads a picture, too
        kind = {8: "InstructPix2Pix", 9: "inpainting"}.get(unet.in_channels, kind)
    return f"{'an' if kind[0] in 'iuI' else 'a'} {kind} prior"


def _check_empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder: give another one.")

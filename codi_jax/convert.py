"""Checkpoints in and out of this package, all in diffusers' format.

python -m codi_jax.convert inspect stabilityai/stable-diffusion-2-1
python -m codi_jax.convert import  stabilityai/stable-diffusion-2-1 models/sd21
python -m codi_jax.convert import  v1-5-pruned.safetensors models/sd15 --tokenizer TOKENIZER
python -m codi_jax.convert export  runs/sr models/my_sr --dtype float16
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from codi_jax.builder import load_model
from codi_jax.checkpoint.diffusers_format import CONFIG, load_config
from codi_jax.checkpoint.directory import (
    ADAPTER_CLASSES,
    INDEX,
    load_pipeline,
    read_pipeline,
    save_pipeline,
)
from codi_jax.checkpoint.files import load_json, stored_tensors
from codi_jax.checkpoint.hub import checkpoint_path, resolve
from codi_jax.checkpoint.pipeline import Pipeline
from codi_jax.checkpoint.single_file import convert_single_file, open_single_file
from codi_jax.typing import UserError


def import_checkpoint(
    source: str, target: Path, dtype: str, prediction_type: str | None, tokenizer: str | None
) -> str:
    """Fetch, convert and check a pipeline; a note on what was written.

    Args:
        source: a directory, a Hugging Face id, or a single ``.safetensors`` file.
        target: a directory that does not exist or is empty.
        dtype: "float32" or "float16", of a directory; a single file keeps its own.
        prediction_type, tokenizer: what a single file does not tell.

    Raises:
        UserError: whatever cannot be read, or a target that is in use.
    """
    _check_empty(target)
    path = resolve(source)
    if path.is_file():
        note = convert_single_file(
            path, target, prediction_type=prediction_type, tokenizer=tokenizer
        )
        read_pipeline(target)  # what was written is what the rest of the package reads
        return note
    if prediction_type or tokenizer:
        raise UserError("--prediction_type and --tokenizer are for single files alone.")
    if not (path / INDEX).is_file() and (path / CONFIG).is_file():
        raise UserError(
            f"{path} is one network, a {load_config(path).get('_class_name')}: it needs no import. "
            "Give an adapter as --config.model.pretrained_adapter."
        )
    save_pipeline(target, load_pipeline(path), dtype=dtype)
    return f"written: {target}"


def export_model(source: str, target: Path, dtype: str) -> str:
    """Write the model of a run, or of a directory, for PyTorch diffusers; a note on its use."""
    _check_empty(target)
    pipeline = load_model(source)
    save_pipeline(target, pipeline, dtype=dtype)
    name = load_json(target / INDEX)["_class_name"]
    if name == "CoDiModel":
        use = "its parts load one by one with from_pretrained(DIRECTORY, subfolder=...)"
    else:
        trust = ", trust_remote_code=True" if isinstance(name, list) else ""
        use = f"DiffusionPipeline.from_pretrained({str(target)!r}{trust})"
    return f"written: {target}\nin PyTorch: {use}"


def inspect(source: str) -> str:
    """What a checkpoint is: its networks, their parameters and files, and what fits it."""
    path = checkpoint_path(source) if source in ("prior", "demo") else resolve(source)
    if path.is_file():
        # Stable Diffusion 2.x does not tell what it predicts; for its parts that is no matter.
        found = open_single_file(path, prediction_type="epsilon")
        rows = [
            f"  {name:<16}{part.config.get('_class_name', '')}"
            for name, part in found.parts.items()
        ]
        fits = f"python -m codi_jax.convert import {path} DIRECTORY"
        return "\n".join([f"{path}: {found.family.title}, a single file", *rows, f"use: {fits}"])
    if not (path / INDEX).is_file():
        kind = load_config(path).get("_class_name") or "/".join(load_config(path)["architectures"])
        fits = "a part of a pipeline"
        if kind in ADAPTER_CLASSES:
            fits = f"--config.model.pretrained_adapter={path}, with the U-Net that it was made for"
        return "\n".join([f"{path}: {kind}", _row(path), f"use: {fits}"])
    pipeline = read_pipeline(path)
    folders = [f.parent for f in sorted(path.glob(f"*/{CONFIG}"))]
    lines = [f"{path}: {_kind(pipeline)}", *(_row(folder) for folder in folders)]
    if pipeline.schedule is not None:
        lines.append(f"  predicts {pipeline.prediction_type}; {pipeline.schedule}")
        lines.append(f"  sampled with {pipeline.sampler}")
    if pipeline.task:
        fits = f"python -m codi_jax.sample --checkpoint {source} --input PHOTO"
    elif pipeline.unet is None:
        fits = f"configs/prior.py with --config.model.pretrained={source}"
    else:
        fits = f"configs/sr.py with --config.model.pretrained={source}"
    return "\n".join([*lines, f"use: {fits}"])


def _kind(pipeline: Pipeline) -> str:
    if pipeline.unet is None:
        return "an autoencoder"
    text = "text-to-image prior" if pipeline.takes_text else "unconditional prior"
    if not pipeline.task:
        return f"a {text}"
    return f"a model for {pipeline.task} x{pipeline.scale}, adapter {pipeline.unet.adapter}"


def _row(folder: Path) -> str:
    tensors = stored_tensors(folder)
    count = sum(tensor.size for tensor in tensors)
    dtypes = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    megabytes = sum(file.stat().st_size for file in {tensor.file for tensor in tensors}) / 1e6
    return f"  {folder.name:<16}{count:>15,} parameters  {dtypes}  {megabytes:,.1f} MB"


def _check_empty(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty folder: give another one.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m codi_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    source = "a directory in diffusers' format, a Hugging Face id owner/name"
    one = commands.add_parser("import", help="fetch, convert and check a pipeline")
    one.add_argument("source", help=f"{source}, or a single .safetensors file")
    one.add_argument("target", type=Path, help="a new directory")
    _add_dtype(one, "on disk; a single file keeps its own")
    one.add_argument("--prediction_type", choices=("epsilon", "v_prediction"))
    one.add_argument("--tokenizer", help="a tokenizer folder, for a single file, which has none")
    two = commands.add_parser("export", help="write a model for PyTorch diffusers")
    two.add_argument("source", help="a run's workdir, or " + source)
    two.add_argument("target", type=Path, help="a new directory")
    _add_dtype(two, "on disk")
    three = commands.add_parser("inspect", help="say what a checkpoint is and what fits it")
    three.add_argument("source", help=f"{source}, or a single .safetensors file")
    return parser


def _add_dtype(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help=f"{text}; %(default)s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: a UserError is one line and exit status 2."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "import":
            print(
                import_checkpoint(
                    args.source, args.target, args.dtype, args.prediction_type, args.tokenizer
                )
            )
        elif args.command == "export":
            print(export_model(args.source, args.target, args.dtype))
        else:
            print(inspect(args.source))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

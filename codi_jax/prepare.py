"""Prepare training data: from any source to ArrayRecord shards.

    python -m codi_jax.prepare --source=PHOTOS --output=shards --resize=1024 --workers=8
    python -m codi_jax.prepare --source='web/*.tar' --output=shards --crop=512 --canny
    python -m codi_jax.prepare --source='hf/*.parquet' --output=shards --depth=MODEL
    python -m codi_jax.prepare --source=PHOTOS --output=shards --crop=512 --latents=CHECKPOINT \\
        --embeddings=CHECKPOINT

Broken, too small and near-duplicate images are left out. The same command run again goes on where
it was stopped, and ends with the same bytes. It writes `images-*.array_record`, `report.json` and
`contact_sheet.png`; train on it with --config.data.source='shards/*.array_record'.
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from codi_jax import cli
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_report import contact_columns
from codi_jax.data.prepare_units import FORMATS, PrepareConfig
from codi_jax.data.sources import make_source
from codi_jax.typing import UserError


def _define_flags() -> None:
    # Not at import: several entry points have a flag of the same name.
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("source", None, "Folder, shards or data set, as config.data.source")
    string("split", "train", "train or eval; for tfds any split")
    string("output", None, "Folder for the shards; a new or unfinished one")
    integer("workers", 0, "Processes; 0: this one alone")
    integer("max_corrupt", None, "Stop at more; default: leave out any")
    integer("min_size", 0, "Leave out images with a shorter side below")
    integer("resize", 0, "Reduce the shorter side to this; 0: keep sizes")
    integer("crop", 0, "Cut into squares of this side; 0: whole images")
    integer("stride", 0, "Distance of the squares; 0: their side")
    integer("near_duplicates", 3, "Leave out within so many of 64 bits of an earlier; -1: none")
    flags.DEFINE_enum("image_format", "png", FORMATS, "Lossless, or JPEG of quality 95")
    flags.DEFINE_bool("canny", False, "Add a column of Canny edges")
    string("depth", "", "Add a column of depth by this transformers model")
    string("latents", "", "Add the latents by this checkpoint's autoencoder; needs --crop")
    string("embeddings", "", "Add the captions' embeddings by this checkpoint's text encoder")
    integer("shard_images", 1000, "Images of the source in a shard")


def _main(_: list[str]) -> None:
    args = flags.FLAGS
    if args.source is None or args.output is None:
        raise UserError("give --source=PHOTOS and --output=DIR; see --help.")
    names = [field.name for field in dataclasses.fields(PrepareConfig)]
    options: dict[str, Any] = {name: args[name].value for name in names}
    config = PrepareConfig(**options)
    output = Path(args.output)
    encoder = None
    if config.latents or config.embeddings:
        from codi_jax.encoding import Encoder  # with jax; most preparations need none

        encoder = Encoder(latents=config.latents, embeddings=config.embeddings)
    report = prepare(
        make_source(args.source, args.split),
        output,
        config,
        label=f"{args.source} ({args.split})",
        workers=args.workers,
        max_corrupt=args.max_corrupt,
        encode=encoder,
    )
    # Not at the top: the worker processes import this module, and need no matplotlib.
    from codi_jax.evals.pictures import grid

    grid(contact_columns(output), output / "contact_sheet.png")
    for name, count in report["images"].items():
        print(f"{name.replace('_', ' '):16s}{count:10d} images")
    megabytes = report["bytes"] / 1e6
    print(f"{report['records']} records, {megabytes:.1f} MB in {report['shards']} shards")
    print(f"written: {output}   pictures: {output / 'contact_sheet.png'}")


if __name__ == "__main__":
    _define_flags()
    cli.run(_main)

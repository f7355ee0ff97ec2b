"""Prepare training data: from any source to ArrayRecord shards.

    python -m codi_jax.prepare --source=PHOTOS --output=shards --resize=1024 --workers=8
    python -m codi_jax.prepare --source='web/*.tar' --output=shards --crop=512 --canny
    python -m codi_jax.prepare --source='hf/*.parquet' --output=shards --depth=MODEL

Broken, too small and near-duplicate images are left out. The same command run again goes on where
it was stopped, and ends with the same bytes. It writes `images-*.array_record`, `report.json` and
`contact_sheet.png`; train on it with --config.data.source='shards/*.array_record'.
"""

import sys
from pathlib import Path

from absl import app, flags

from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_report import contact_columns
from codi_jax.data.prepare_units import FORMATS, PrepareConfig
from codi_jax.data.sources import make_source
from codi_jax.typing import UserError

_SOURCE = flags.DEFINE_string("source", None, "Folder, shards or data set, as config.data.source")
_SPLIT = flags.DEFINE_string("split", "train", "train or eval; for tfds any split")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the shards; a new or unfinished one")
_WORKERS = flags.DEFINE_integer("workers", 0, "Processes; 0: this one alone")
_MAX_CORRUPT = flags.DEFINE_integer("max_corrupt", None, "Stop at more; default: leave out any")
_MIN_SIZE = flags.DEFINE_integer("min_size", 0, "Leave out images with a shorter side below")
_RESIZE = flags.DEFINE_integer("resize", 0, "Reduce the shorter side to this; 0: keep sizes")
_CROP = flags.DEFINE_integer("crop", 0, "Cut into squares of this side; 0: whole images")
_STRIDE = flags.DEFINE_integer("stride", 0, "Distance of the squares; 0: their side")
_NEAR = flags.DEFINE_integer(
    "near_duplicates", 3, "Leave out images within so many of 64 bits of an earlier; -1: none"
)
_FORMAT = flags.DEFINE_enum("image_format", "png", FORMATS, "png (lossless), or jpeg of quality 95")
_CANNY = flags.DEFINE_bool("canny", False, "Add a column of Canny edges")
_DEPTH = flags.DEFINE_string("depth", "", "Add a column of depth by this transformers model")
_SHARD = flags.DEFINE_integer("shard_images", 1000, "Images of the source in a shard")


def _main() -> None:
    if _SOURCE.value is None or _OUTPUT.value is None:
        raise UserError("give --source=PHOTOS and --output=DIR; see --help.")
    config = PrepareConfig(
        min_size=_MIN_SIZE.value,
        resize=_RESIZE.value,
        crop=_CROP.value,
        stride=_STRIDE.value,
        near_duplicates=_NEAR.value,
        image_format=_FORMAT.value,
        canny=_CANNY.value,
        depth=_DEPTH.value,
        shard_images=_SHARD.value,
    )
    output = Path(_OUTPUT.value)
    report = prepare(
        make_source(_SOURCE.value, _SPLIT.value),
        output,
        config,
        label=f"{_SOURCE.value} ({_SPLIT.value})",
        workers=_WORKERS.value,
        max_corrupt=_MAX_CORRUPT.value,
    )
    # Not at the top: the worker processes import this module, and need no matplotlib.
    from codi_jax.evals.pictures import grid

    grid(contact_columns(output), output / "contact_sheet.png")
    for name, count in report["images"].items():
        print(f"{name.replace('_', ' '):16s}{count:10d} images")
    print(
        f"{report['records']} records, {report['bytes'] / 1e6:.1f} MB in {report['shards']} shards"
    )
    print(f"written: {output}   pictures: {output / 'contact_sheet.png'}")


def run_main() -> None:
    """The command line: a UserError is one line and exit status 2."""

    def guarded(_: list[str]) -> None:
        try:
            _main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)


if __name__ == "__main__":
    run_main()

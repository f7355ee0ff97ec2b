"""Prepare training data: from any source to ArrayRecord shards.

    python -m codi_jax.prepare --source=PHOTOS --output=shards --workers=8
    python -m codi_jax.prepare --source='web/*.tar' --output=shards --crop=512
    python -m codi_jax.prepare --source=PHOTOS --output=shards --depth=MODEL

Broken, too small and near-duplicate images are left out. If it was stopped, the same command goes
on where it was and ends with the same bytes. It writes `images-*.array_record`, `report.json` and
`contact_sheet.png`; train on the shards with --config.data.source='shards/*.array_record'.
"""

from codi_jax.cli import app, flags
from codi_jax.data.preparation import Preparation, prepare_source
from codi_jax.data.prepare_report import contact_columns
from codi_jax.data.prepare_units import FORMATS, PrepareConfig


def define_flags() -> None:
    """The flags of this command."""
    flags.define(Preparation)
    flags.define(PrepareConfig, {"image_format": FORMATS})


def run(_: list[str]) -> None:
    """Prepare the data that the flags name."""
    preparation, config = flags.read(Preparation), flags.read(PrepareConfig)
    preparation.check()
    encoder = None
    if config.latents or config.embeddings:
        from codi_jax.sampling.encoding import Encoder  # with jax; most preparations need none

        encoder = Encoder(latents=config.latents, embeddings=config.embeddings)
    report = prepare_source(preparation, config, encoder)
    # Not at the top: the worker processes import this module, and need no matplotlib.
    from codi_jax.evals.pictures import grid

    sheet = preparation.output / "contact_sheet.png"
    grid(contact_columns(preparation.output), sheet)
    for name, count in report["images"].items():
        print(f"{name.replace('_', ' '):16s}{count:10d} images")
    megabytes = report["bytes"] / 1e6
    print(f"{report['records']} records, {megabytes:.1f} MB in {report['shards']} shards")
    print(f"written: {preparation.output}   pictures: {sheet}")


def main() -> None:
    """The command."""
    app.run(run, define_flags, __doc__)


if __name__ == "__main__":
    main()

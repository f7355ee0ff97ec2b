"""What `codi_jax.prepare` is asked for: a source by its name, and where the shards go."""

import dataclasses
from pathlib import Path

from codi_jax.data.prepare import Report, prepare
from codi_jax.data.prepare_units import Encode, PrepareConfig
from codi_jax.data.sources import NamedSource, make_source
from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Where the images come from and where the shards go. Nothing here changes the shards.

    Attributes:
        source: folder, shards or data set, as config.data.source.
        split: train or eval; for tfds any split.
        output: folder for the shards; a new or unfinished one.
        workers: processes; 0 for this one alone.
        beam: options of an Apache Beam pipeline that does the work on many machines, such as
            "--runner=FlinkRunner --flink_master=HOST:8081"; by default this machine does it.
        max_corrupt: stop when more images are corrupt; by default any number is left out.
    """

    source: str = ""
    split: str = "train"
    output: Path = Path()
    workers: int = 0
    beam: str = ""
    max_corrupt: int | None = None

    def check(self) -> None:
        """Raises a UserError without a source or an output."""
        if not self.source or self.output == Path():
            raise UserError("give --source=PHOTOS and --output=DIR; see --help.")
        if self.beam and self.workers:
            raise UserError(
                f"--workers={self.workers} is for this machine: with --beam, how many work is an "
                "option of its runner, such as --direct_num_workers."
            )


def prepare_source(
    preparation: Preparation, config: PrepareConfig, encode: Encode | None
) -> Report:
    """Prepare what ``preparation`` names; see :func:`codi_jax.data.prepare.prepare`."""
    source = NamedSource if preparation.beam else make_source
    return prepare(
        source(preparation.source, preparation.split),
        preparation.output,
        config,
        label=f"{preparation.source} ({preparation.split})",
        workers=preparation.workers,
        beam=preparation.beam,
        max_corrupt=preparation.max_corrupt,
        encode=encode,
    )

"""The items of a checkpoint for orbax: who writes and reads them, and their arguments."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from codi_jax.checkpoint.integrity import SUMS, write_checksums
from codi_jax.checkpoint.matching import by_path
from codi_jax.typing import PyTree

ARRAY_ITEMS = ("trainable", "ema", "opt")


class _ChecksumHandler(ocp.CheckpointHandler):
    """Writes the checksums when the other items are on disk, just before all is committed."""

    def save(self, directory: Any, args: "_ChecksumArgs") -> None:
        """Nothing yet: the other items are still being written."""

    def restore(self, directory: Any, args: "_ChecksumArgs") -> None:
        """Nothing: see :meth:`Store.newest_whole`."""

    def finalize(self, directory: Any) -> None:
        """Called by orbax for each item in the order of :func:`item_handlers`, so here last."""
        root = Path(directory).parent
        items = [name for name in (*ARRAY_ITEMS, "data", "meta") if (root / name).is_dir()]
        if "meta" not in items:
            raise RuntimeError(f"orbax commits items in another order: only {items} are written")
        write_checksums(root, items, Path(directory))


@ocp.args.register_with_handler(_ChecksumHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _ChecksumArgs(ocp.args.CheckpointArgs):
    """Of an item that has no arguments."""


def item_handlers() -> dict[str, ocp.CheckpointHandler]:
    """What writes and reads each item, in the order in which they are committed."""
    every_process = ocp.options.MultiprocessingOptions(primary_host=None)
    return {
        **{name: ocp.StandardCheckpointHandler() for name in ARRAY_ITEMS},
        # Each process reads its own examples, so each writes its own position.
        "data": ocp.JsonCheckpointHandler(
            f"process_{jax.process_index()}.json", multiprocessing_options=every_process
        ),
        "meta": ocp.JsonCheckpointHandler(),
        SUMS: _ChecksumHandler(),
    }


def save_arguments(
    trainable: PyTree, ema: PyTree, opt: PyTree, data_state: object, meta: Mapping[str, object]
) -> ocp.args.Composite:
    """The arguments of one save: see :meth:`codi_jax.checkpoint.store.Store.save`."""
    arrays = {
        name: ocp.args.StandardSave(flat)
        for name, flat in (
            ("trainable", by_path(trainable)),
            ("ema", by_path(ema)),
            ("opt", by_path(opt)),
        )
        if flat  # orbax refuses an item without leaves, e.g. the state of plain SGD
    }
    if isinstance(data_state, bytes):
        data: dict[str, object] = {"bytes": data_state.decode()}
    else:
        data = {"json": data_state}
    return ocp.args.Composite(
        **arrays,
        data=ocp.args.JsonSave(data),
        meta=ocp.args.JsonSave(meta),
        **{SUMS: _ChecksumArgs()},
    )

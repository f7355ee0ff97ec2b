"""Training checkpoints: asynchronous, sharded, committed whole or not at all (orbax).

A checkpoint of step ``n`` is the directory ``<directory>/<n>`` with separate items, so that each
can be read without the others:

========= ==========================================================================
trainable the online parameters theta
ema       the averages (theta- and, if kept, the slower one for evaluation)
opt       the optimiser's state
data      JSON: the position of the data iterator, one file for each process
meta      JSON: step, configuration hash, hash of the frozen parameters, versions
checksums JSON: size and CRC-32 of every file of the other items
========= ==========================================================================

Array items are stored flat, ``{path: array}``; the template of a restore brings the structure
(named tuples of optax, nested dicts), the dtypes and the shardings, so a checkpoint restores
onto any number of devices. What is killed while it saves leaves no committed step: the previous
complete one stays the latest. What was damaged afterwards is found by the checksums, and
:meth:`Store.newest_whole` goes back to the checkpoint before. A checkpoint is read once in the
background of training to write its checksums, and once at the start to check them.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from codi_jax.checkpoint.integrity import checkpoint_damage, set_aside
from codi_jax.checkpoint.items import item_handlers, save_arguments
from codi_jax.checkpoint.matching import abstract, by_path, check_matches
from codi_jax.typing import PyTree, UserError, check_local

# What orbax logs in hundreds of lines it also raises, and Store says it in one.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


class Store:
    """The checkpoints in one directory; a context manager that waits for the last save.

    Args:
      directory: created if it does not exist (unless ``read_only``).
      max_to_keep: number of latest checkpoints that stay.
      save_interval_steps: :meth:`save` writes at multiples of it.
      read_only: for evaluation and export while a run may still be writing there.

    Raises:
      UserError: ``read_only`` and there is no such directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_to_keep: int = 2,
        save_interval_steps: int = 1,
        read_only: bool = False,
    ):
        check_local("the directory of checkpoints", directory)
        path = os.path.abspath(directory)
        if read_only and not Path(path).is_dir():
            raise UserError(f"No checkpoints: {path} is not a directory. Check the workdir.")
        managers = ocp.checkpoint_managers
        self._read_only = read_only
        self._handlers = item_handlers()
        self._manager = ocp.CheckpointManager(
            path,
            item_handlers=self._handlers,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.LatestN(max_to_keep),
                save_decision_policy=managers.FixedIntervalPolicy(save_interval_steps),
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def save(
        self,
        step: int,
        *,
        trainable: PyTree,
        ema: PyTree,
        opt: PyTree,
        data_state: object,
        meta: Mapping[str, object],
        force: bool = False,
    ) -> bool:
        """Starts to save in the background, if ``step`` is due; says whether it did.

        The arrays are copied to the host before this returns, so the caller may donate them.

        Args:
          step: number of steps done.
          trainable: the trained parameters. A tree without arrays is not stored.
          ema: their averages.
          opt: the optimiser's state.
          data_state: the iterator's state, JSON-able or bytes of UTF-8.
          meta: JSON-able; ``step`` is added.
          force: save although ``step`` is not a multiple of the interval (the last step, or
            the last before a run is stopped). A step that is already saved is not saved again.

        Raises:
          UserError: the disk is full, read-only or gone, now or since the last save began.
        """
        if step in self._manager.all_steps():
            return False
        if not Path(self._manager.directory).is_dir():
            # orbax would make it anew, perhaps where a disk was mounted before.
            raise UserError(
                f"{self._manager.directory} has vanished, so step {step} is not saved. Bring the "
                "workdir back (is its disk mounted?) and run the same command again."
            )
        args = save_arguments(trainable, ema, opt, data_state, {**meta, "step": step})
        with self._writing():
            return self._manager.save(step, args=args, force=force)

    def should_save(self, step: int) -> bool:
        """Whether :meth:`save` would write ``step`` (without ``force``)."""
        return self._manager.should_save(step)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def newest_whole(self) -> int | None:
        """The newest checkpoint that is not damaged, or None if there is no checkpoint.

        Damaged ones that are newer get ``.damaged`` at the end of their names (not with
        ``read_only``), and one line on standard error says so. The first process checks for all.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        damage: dict[int, str] = {}
        found = -1
        if jax.process_index() == 0:
            for step in reversed(self.all_steps()):
                said = checkpoint_damage(Path(self._manager.directory) / str(step))
                if not said:
                    found = step
                    break
                damage[step] = said
            if found >= 0:
                for step, said in damage.items():
                    path = Path(self._manager.directory) / str(step)
                    set_aside(path, said, rename=not self._read_only)
        if jax.process_count() > 1:
            answer = np.asarray([found, len(damage)], np.int32)
            found, count = (int(n) for n in multihost_utils.broadcast_one_to_all(answer))
        else:
            count = len(damage)
        if found < 0 and count:
            listed = "; ".join(f"{step} ({said})" for step, said in damage.items())
            raise UserError(
                f"every checkpoint in {self._manager.directory} is damaged: {listed or count}. "
                "Put one back from a copy, or begin anew in another workdir."
            )
        self._manager.reload()
        return None if found < 0 else found

    def all_steps(self) -> list[int]:
        """The complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, templates: Mapping[str, PyTree]) -> dict[str, PyTree]:
        """The items named in ``templates``, bit for bit as they were saved.

        Args:
          step: one of the complete checkpoints.
          templates: by item name (trainable, ema, opt) a tree of arrays or ShapeDtypeStructs.
            Their shardings decide where the values go; a leaf without one goes to this
            process's first device.

        Raises:
          UserError: no such checkpoint or item; a parameter is missing, too many, or has
            another shape or dtype (the first is named); the files are damaged.
        """
        flats = {
            name: {path: abstract(leaf) for path, leaf in by_path(template).items()}
            for name, template in templates.items()
        }
        wanted = {name: ocp.args.StandardRestore(flat) for name, flat in flats.items() if flat}
        restored: Mapping[str, Mapping[str, PyTree]] = {}
        with self._reading(step) as directory:
            for name, flat in flats.items():
                item = directory / name
                saved = self._handlers[name].metadata(item).tree if item.exists() else {}
                check_matches(f"{directory}, item {name!r}", saved, flat)
            if wanted:
                restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
        return {
            name: jax.tree.unflatten(
                jax.tree.structure(template), [restored[name][path] for path in flats[name]]
            )
            for name, template in templates.items()
        }

    def restore_meta(self, step: int) -> dict[str, object]:
        """The ``meta`` that was saved with ``step``, including ``step``."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading(step):
            return dict(self._manager.restore(step, args=args)["meta"])

    def restore_data_state(self, step: int) -> Any:
        """The data iterator's state, as it was passed to :meth:`save`.

        With as many processes as at the save, each gets its own. With another number it is
        given only if all states are equal, i.e. if it is a position that every process shares.

        Raises:
          UserError: the number of processes changed and the states differ; damaged files.
        """
        with self._reading(step) as checkpoint:
            directory = checkpoint / "data"
            files = directory.glob("process_*")
            states = {path.name: json.loads(path.read_text()) for path in files}
            same = len(states) == jax.process_count()
            state = states[f"process_{jax.process_index() if same else 0}.json"]
        if not same and any(other != state for other in states.values()):
            raise UserError(
                f"{directory} holds the data positions of {len(states)} processes, and they "
                f"differ; this run has {jax.process_count()}. Resume with {len(states)}."
            )
        return state["bytes"].encode() if "bytes" in state else state["json"]

    def close(self) -> None:
        """Waits, then releases the threads; the store cannot be used afterwards.

        Raises:
          UserError: the last save failed.
        """
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            code = re.search(r"os_error_code='(\d+)'", str(error))
            reason = os.strerror(int(code[1])) if code else _first_line(error)
            raise UserError(
                f"no checkpoint can be written to {self._manager.directory}: {reason}. The "
                "checkpoints that are there are whole. Make room or mend the disk, and run the "
                "same command again."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except UserError:
            if error is None:  # else the disk has been complained of already
                raise

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[Path]:
        """The checkpoint's directory; what cannot be read there is named."""
        self._check_step(step)
        directory = Path(self._manager.directory) / str(step)
        try:
            yield directory
        except UserError:
            raise
        except (ValueError, OSError, KeyError) as error:
            raise UserError(
                f"Checkpoint {directory} is damaged ({_first_line(error)}). "
                "Delete that directory to resume from the one before."
            ) from error

    def _check_step(self, step: int) -> None:
        steps = self.all_steps()
        if step not in steps:
            raise UserError(
                f"No complete checkpoint of step {step} in {self._manager.directory}; "
                f"there are: {', '.join(map(str, steps)) or 'none'}."
            )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

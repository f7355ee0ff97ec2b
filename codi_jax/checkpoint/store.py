"""Training checkpoints: asynchronous, sharded, committed whole or not at all (orbax).

A checkpoint of step ``n`` is the directory ``<directory>/<n>`` with separate items, so that each
can be read without the others:

========= ==========================================================================
trainable the online parameters theta
ema       the averages (theta- and, if kept, the slower one for evaluation)
opt       the optimiser's state
data      JSON: the position of the data iterator, one file for each process
meta      JSON: step, configuration hash, hash of the frozen parameters, versions
========= ==========================================================================

Array items are stored flat, ``{path: array}``; the template of a restore brings the structure
(named tuples of optax, nested dicts), the dtypes and the shardings, so a checkpoint restores
onto any number of devices. What is killed while it saves leaves no committed step: the previous
complete one stays the latest.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from codi_jax.typing import PyTree, UserError

ARRAY_ITEMS = ("trainable", "ema", "opt")


def _flat(tree: PyTree) -> dict[str, PyTree]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(k, simple=True, separator="/"): leaf for k, leaf in leaves}


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    every_process = ocp.options.MultiprocessingOptions(primary_host=None)
    return {
        **{name: ocp.StandardCheckpointHandler() for name in ARRAY_ITEMS},
        # Each process reads its own examples, so each writes its own position.
        "data": ocp.JsonCheckpointHandler(
            f"process_{jax.process_index()}.json", multiprocessing_options=every_process
        ),
        "meta": ocp.JsonCheckpointHandler(),
    }


class Store:
    """The checkpoints in one directory; a context manager that waits for the last save.

    Args:
      directory: created if it does not exist (unless ``read_only``).
      max_to_keep: number of latest checkpoints that stay.
      save_interval_steps: :meth:`save` writes at multiples of it and on preemption.
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
        path = os.fspath(directory)
        if "://" not in path:
            path = os.path.abspath(path)
            if read_only and not Path(path).is_dir():
                raise UserError(f"No checkpoints: {path} is not a directory. Check the workdir.")
        managers = ocp.checkpoint_managers
        self._handlers = _handlers()
        self._manager = ocp.CheckpointManager(
            path,
            item_handlers=self._handlers,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.LatestN(max_to_keep),
                save_decision_policy=managers.AnySavePolicy(
                    [
                        managers.FixedIntervalPolicy(save_interval_steps),
                        managers.PreemptionCheckpointingPolicy(),
                    ]
                ),
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
          force: save although ``step`` is not a multiple of the interval (the last step). A
            step that is already saved is not saved again.
        """
        if step in self._manager.all_steps():
            return False
        arrays = {
            name: ocp.args.StandardSave(flat)
            for name, flat in (
                ("trainable", _flat(trainable)),
                ("ema", _flat(ema)),
                ("opt", _flat(opt)),
            )
            if flat  # orbax refuses an item without leaves, e.g. the state of plain SGD
        }
        if isinstance(data_state, bytes):
            data: dict[str, object] = {"bytes": data_state.decode()}
        else:
            data = {"json": data_state}
        return self._manager.save(
            step,
            args=ocp.args.Composite(
                **arrays,
                data=ocp.args.JsonSave(data),
                meta=ocp.args.JsonSave({**meta, "step": step}),
            ),
            force=force,
        )

    def should_save(self, step: int) -> bool:
        """Whether :meth:`save` would write ``step`` (without ``force``)."""
        return self._manager.should_save(step)

    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

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
        self._check_step(step)
        directory = self._manager.directory / str(step)
        flats = {
            name: {path: _abstract(leaf) for path, leaf in _flat(template).items()}
            for name, template in templates.items()
        }
        wanted = {name: ocp.args.StandardRestore(flat) for name, flat in flats.items() if flat}
        restored: Mapping[str, Mapping[str, PyTree]] = {}
        try:
            for name, flat in flats.items():
                item = directory / name
                saved = self._handlers[name].metadata(item).tree if item.exists() else {}
                _check_matches(f"{directory}, item {name!r}", saved, flat)
            if wanted:
                restored = self._manager.restore(step, args=ocp.args.Composite(**wanted))
        except UserError:
            raise
        except (ValueError, OSError) as error:
            raise UserError(
                f"Checkpoint {directory} is damaged ({_first_line(error)}). "
                "Delete that directory to resume from the one before."
            ) from error
        return {
            name: jax.tree.unflatten(
                jax.tree.structure(template), [restored[name][path] for path in flats[name]]
            )
            for name, template in templates.items()
        }

    def restore_meta(self, step: int) -> dict[str, object]:
        """The ``meta`` that was saved with ``step``, including ``step``."""
        self._check_step(step)
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return dict(self._manager.restore(step, args=args)["meta"])

    def restore_data_state(self, step: int) -> Any:
        """The data iterator's state, as it was passed to :meth:`save`.

        With as many processes as at the save, each gets its own. With another number it is
        given only if all states are equal, i.e. if it is a position that every process shares.

        Raises:
          UserError: the number of processes changed and the states differ.
        """
        self._check_step(step)
        directory = self._manager.directory / str(step) / "data"
        states = {path.name: json.loads(path.read_text()) for path in directory.glob("process_*")}
        if len(states) == jax.process_count():
            state = states[f"process_{jax.process_index()}.json"]
        else:
            state = next(iter(states.values()))
            if any(other != state for other in states.values()):
                raise UserError(
                    f"{directory} holds the data positions of {len(states)} processes, and they "
                    f"differ; this run has {jax.process_count()}. Resume with {len(states)}."
                )
        return state["bytes"].encode() if "bytes" in state else state["json"]

    def close(self) -> None:
        """Waits, then releases the threads; the store cannot be used afterwards."""
        self._manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_step(self, step: int) -> None:
        steps = self.all_steps()
        if step not in steps:
            raise UserError(
                f"No complete checkpoint of step {step} in {self._manager.directory}; "
                f"there are: {', '.join(map(str, steps)) or 'none'}."
            )


def _abstract(leaf: jax.Array | np.ndarray | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        # Otherwise orbax takes the saved sharding, whose devices may not exist here.
        sharding = SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_matches(
    where: str, saved: Mapping[str, Any], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Raises one UserError about the first difference between checkpoint and template."""
    problems = []
    for path, want in wanted.items():
        have = saved.get(path)
        if have is None:
            problems.append(f"{path} is not in the checkpoint")
        elif tuple(have.shape) != tuple(want.shape) or have.dtype != want.dtype:
            problems.append(
                f"{path} is {have.dtype}{list(have.shape)} in the checkpoint and "
                f"{want.dtype}{list(want.shape)} in this model"
            )
    problems += [f"{path} is not in this model" for path in saved if path not in wanted]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(
            f"Checkpoint {where} does not fit this model: {problems[0]}{more}. "
            "Use the configuration it was trained with, or another workdir."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

"""The work of `prepare` on the machines of an Apache Beam runner, in the place of `pool.Pool`."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from codi_jax.data.pool import Task, use_one_thread
from codi_jax.typing import UserError

#: A file beside the results in which a worker leaves what is wrong, for the process that waits.
_ERROR = "error.txt"


class BeamPool:
    """Calls `function(held, *arguments)` wherever the runner of a pipeline does.

    Every worker sees the source and the results under the same paths. A call that the runner
    repeats writes the same again.

    Args:
        held: picklable; it travels with the pipeline.
        options: of the pipeline, as on Beam's command line; "--runner=DirectRunner" works here.
        work: a folder that all workers see.

    Raises:
        UserError: Beam is not installed, or the options are none.
    """

    def __init__(self, held: object, options: str, work: Path) -> None:
        try:
            import apache_beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise UserError(
                "--beam needs Apache Beam: run `pip install -e '.[beam]'` in an environment of its "
                "own, or leave --beam out and use --workers."
            ) from error
        self._beam, self._held, self._error = apache_beam, held, work / _ERROR
        words = shlex.split(options)
        if not words[0].startswith("--"):
            raise UserError(
                f"--beam={options!r} is no list of pipeline options: give for example "
                "--beam='--runner=DirectRunner'."
            )
        self._options = PipelineOptions(words)

    def __enter__(self) -> "BeamPool":
        return self

    def __exit__(self, *_: object) -> None:
        self._error.unlink(missing_ok=True)

    def run(self, function: Callable[..., None], tasks: Sequence[Task]) -> Iterator[Task]:
        """Yields the tasks when the pipeline has done all of them.

        Raises:
            UserError: of the first worker that raised one; or the pipeline failed.
        """
        if not tasks:
            return
        self._error.unlink(missing_ok=True)
        beam = self._beam
        pipeline = beam.Pipeline(options=self._options)
        call = _Call(self._held, function, self._error)
        # Without the shuffle a runner would fuse both steps and do all on one machine.
        _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(call)
        try:
            state = pipeline.run().wait_until_finish()
        except Exception as error:  # runners raise what they like
            raise UserError(f"the pipeline failed: {_problem(error)}") from error
        if self._error.exists():
            raise UserError(self._error.read_text(encoding="utf-8"))
        if state not in (None, "DONE"):
            raise UserError(f"the pipeline ended as {state}: see the log of its runner.")
        yield from tasks


class _Call:
    """One call, on a worker. A mistake of the user's is written down: runners would repeat it."""

    def __init__(self, held: object, function: Callable[..., None], error: Path) -> None:
        self._held, self._function, self._error = held, function, error

    def __call__(self, task: tuple[object, ...]) -> None:
        use_one_thread()
        if self._error.exists():
            return
        try:
            self._function(self._held, *task)
        except UserError as error:
            self._error.write_text(str(error), encoding="utf-8")


def _problem(error: Exception) -> str:
    """Of a worker's traceback the last line, of a connection that was lost the details."""
    details = getattr(error, "details", None)  # of gRPC, which portable runners speak
    lines = str(details() if callable(details) else error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"

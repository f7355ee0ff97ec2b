"""A profile of a few training steps, for TensorBoard."""

import sys
from collections.abc import Mapping
from pathlib import Path

import jax

from codi_jax.typing import Array

#: Steps before the profile: the first is compiled, and the pipeline of data fills up.
WARM_UP = 5


class Profile:
    """Records what host and devices do in some steps.

    TensorBoard shows it under "Profile" where its plugin is installed
    (``pip install xprof``).

    Args:
        directory: of TensorBoard's files; the profile goes to ``plugins/profile`` there.
        steps: how many are recorded; 0 for none.
    """

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory, self._steps = directory, steps
        self._last: int | None = None

    def before(self, step: int, start: int, last: int) -> None:
        """Begin, if it is time: ``step`` is next of those from ``start`` up to ``last``."""
        first = min(start + WARM_UP, max(last - self._steps, start + 1))
        if self._steps and step == first:
            jax.profiler.start_trace(self._directory)
            self._last = step + self._steps

    def after(self, done: int, metrics: Mapping[str, Array]) -> None:
        """End, if ``done`` steps are enough; ``metrics`` are the last step's."""
        if self._last is not None and done >= self._last:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """End a profile that has begun."""
        if self._last is None:
            return
        self._last = None
        jax.profiler.stop_trace()
        if jax.process_index() == 0:
            print(f"profile: tensorboard --logdir={self._directory}", file=sys.stderr)

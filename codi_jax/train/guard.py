"""Steps whose loss or gradient is not finite: skipped, counted, and at last refused."""

import math
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from codi_jax.train.step import SKIPPED
from codi_jax.typing import Array, UserError

#: So many skipped steps in a row end the run.
LIMIT = 10
#: Metrics are read so many steps late, so that the host never waits for the devices.
LAG = 2
#: Names of samples that the message gives.
SHOWN = 16
#: Of a batch: strings.
Names = Sequence[str] | np.ndarray


class Guard:
    """Watches the metrics of each step.

    The step itself leaves the state as it was (:func:`codi_jax.train.step.make_step`), so every
    checkpoint is finite.

    Args:
        last_checkpoint: the step of the last checkpoint, None if there is none.

    Attributes:
        skipped: number of steps that were skipped since the start or the last resume.
    """

    def __init__(self, last_checkpoint: Callable[[], int | None]) -> None:
        self.skipped = 0
        self._last_checkpoint = last_checkpoint
        self._in_a_row: list[tuple[int, str, Names]] = []
        self._pending: deque[tuple[int, Mapping[str, Array], Names]] = deque()

    def watch(self, step: int, metrics: Mapping[str, Array], names: Names) -> None:
        """Remember a step and look at those that are :data:`LAG` steps old.

        Args:
            step: its number, from 1.
            metrics: of the step, perhaps still being computed.
            names: of the samples that this process gave to the batch.

        Raises:
            UserError: :data:`LIMIT` steps in a row were skipped.
        """
        self._pending.append((step, metrics, names))
        while len(self._pending) > LAG:
            self._look(*self._pending.popleft())

    def settle(self, step: int) -> None:
        """Look at the steps up to ``step`` that were remembered; raises as :meth:`watch`."""
        while self._pending and self._pending[0][0] <= step:
            self._look(*self._pending.popleft())

    def _look(self, step: int, metrics: Mapping[str, Array], names: Names) -> None:
        if not float(metrics[SKIPPED]):
            self._in_a_row.clear()
            return
        bad = [
            name
            for name, value in metrics.items()
            if name != SKIPPED and not math.isfinite(float(value))
        ]
        self.skipped += 1
        self._in_a_row.append((step, " and ".join(bad), names))
        if len(self._in_a_row) < LIMIT:
            print(
                f"step {step} is skipped: {' and '.join(bad)} not finite "
                f"({len(self._in_a_row)} in a row, {self.skipped} in all)",
                file=sys.stderr,
            )
            return
        first, bad_first, names_first = self._in_a_row[0]
        good = self._last_checkpoint()
        saved = "there is no checkpoint yet" if good is None else f"the last checkpoint is {good}"
        shown = ", ".join(map(str, names_first[:SHOWN]))
        shown += ", ..." if len(names_first) > SHOWN else ""
        raise UserError(
            f"step {step}: {LIMIT} steps in a row were not finite, from step {first} on "
            f"({bad_first}), whose samples were {shown or 'without names'}; {saved}. Look at these "
            "samples, or lower config.optim.learning_rate or config.optim.clip_norm (a resumed run "
            "may change both), and run the command again."
        )

"""How fast steps follow each other, and how long they wait for data."""

import time
from collections.abc import Mapping
from typing import Any

import jax

from codi_jax.train.flops import utilisation
from codi_jax.train.guard import LAG


class Pace:
    """Times the loop without waiting for the devices.

    Args:
        batch_size: of the global batch.
        device: any device of the mesh.
    """

    def __init__(self, batch_size: int, device: jax.Device) -> None:
        self._batch_size, self._device = batch_size, device
        self.flops = self.passes = 0.0  # of a step; 0 where they are not known
        self.restart(0)

    def restart(self, step: int) -> None:
        """Time from here on, with ``step`` steps done and nothing left to do."""
        self._since, self._begin, self._waited = step, time.monotonic(), 0.0

    def fetched(self, begin: float, last: Mapping[str, Any]) -> None:
        """Data were fetched from ``begin`` until now.

        Steps waited for them if the devices have nothing to do: the time counts if what was last
        given to them, with metrics ``last``, is done by now.
        """
        if all(value.is_ready() for value in last.values()):
            self._waited += time.monotonic() - begin

    def read(self, step: int) -> dict[str, float]:
        """Rates since the last call or :meth:`restart`; the devices were just given ``step``.

        The guard has just waited for the step :data:`LAG` before, so that one is done.

        Returns:
            ``images_per_s``; ``data_wait``, the share of the time in which the devices waited for
            data, at most (an upper bound, in [0, 1]); what :func:`utilisation` gives; and, where
            they are known, the ``passes`` of all steps so far.
        """
        now = time.monotonic()
        done = step - LAG if step - LAG > self._since else step
        seconds = max(now - self._begin, 1e-9)
        a_step = seconds / (done - self._since)
        rates = {
            "images_per_s": self._batch_size / a_step,
            "data_wait": min(self._waited / seconds, 1.0),
            **utilisation(self.flops, a_step, self._device),
        }
        if self.passes:
            rates["passes"] = step * self.passes
        self._since, self._begin, self._waited = done, now, 0.0
        return rates

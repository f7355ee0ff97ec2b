"""Where a run's numbers go: ``metrics.jsonl``, TensorBoard events, one line on the terminal.

clu's TensorBoard writer needs TensorFlow. It is imported here alone and only when a writer is
made, so that everything else runs where TensorFlow is absent; ``metrics.jsonl`` always is.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from tqdm import tqdm

from codi_jax.typing import UserError

JSONL = "metrics.jsonl"
TENSORBOARD = "tensorboard"

_logger = logging.getLogger(__name__)


class JsonlWriter:
    """One JSON object a line: ``{"step": 100, "loss": 0.25, ...}``; clu's MetricWriter interface.

    Only scalars are written: images, audio and the rest pass unseen. Numbers that JSON lacks
    are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, which ``float()`` reads back.

    Args:
      path: appended to; lines beyond ``start_step`` and a line cut off by a crash go first.
      start_step: the step of the restored checkpoint: what came after it will come again.
    """

    def __init__(self, path: Path, start_step: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _truncate(path, start_step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        record = {name: _json_number(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": int(step), **record}) + "\n")
        self._file.flush()

    def write_summaries(self, step: int, values: Any, metadata: Any = None) -> None: ...

    def write_images(self, step: int, images: Any) -> None: ...

    def write_videos(self, step: int, videos: Any) -> None: ...

    def write_audios(self, step: int, audios: Any, *, sample_rate: int) -> None: ...

    def write_texts(self, step: int, texts: Any) -> None: ...

    def write_histograms(self, step: int, arrays: Any, num_buckets: Any = None) -> None: ...

    def write_hparams(self, hparams: Any) -> None: ...

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class MetricsWriter:
    """Scalars and pictures of one run; silent on every process but the first.

    Args:
      workdir: holds ``metrics.jsonl`` and ``tensorboard/``.
      tensorboard: False for ``metrics.jsonl`` alone.
      start_step: the step of the restored checkpoint, 0 for a new run; later lines of
        ``metrics.jsonl`` are removed. (TensorBoard's old events stay: it shows both.)
    """

    def __init__(
        self, workdir: str | os.PathLike[str], tensorboard: bool = True, *, start_step: int = 0
    ):
        self._writer: Any = None
        if jax.process_index() != 0:
            return
        jsonl = JsonlWriter(Path(workdir) / JSONL, start_step)
        events = _multi_writer(Path(workdir) / TENSORBOARD, jsonl) if tensorboard else None
        self._writer = jsonl if events is None else events

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Each value a number or an array of one element; waits for arrays on the device."""
        if self._writer is not None:
            self._writer.write_scalars(
                step, {name: float(np.asarray(value).item()) for name, value in scalars.items()}
            )

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Pictures [N, H, W, 3], uint8 or float in [0, 1]; TensorBoard only."""
        arrays = {name: np.asarray(image) for name, image in images.items()}
        for name, array in arrays.items():
            if array.ndim != 4 or array.shape[-1] != 3:
                raise ValueError(f"images {name!r} have shape {array.shape}, not [N, H, W, 3].")
            if array.dtype != np.uint8:
                pixels = np.clip(array.astype(np.float32), 0.0, 1.0)
                arrays[name] = np.round(pixels * 255.0).astype(np.uint8)
        if self._writer is not None:
            self._writer.write_images(step, arrays)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Progress:
    """How far the run is: a live line on a terminal, else a plain line at each log interval.

    Args:
      total: number of steps of the whole run.
      start: steps already done (a resumed run).
      file: standard error by default.
    """

    def __init__(self, total: int, start: int = 0, *, file: TextIO | None = None):
        self._file = sys.stderr if file is None else file
        self._total, self._start, self._begin = total, start, time.monotonic()
        self._quiet = jax.process_index() != 0
        self._bar = None
        if not self._quiet and self._file.isatty():
            self._bar = tqdm(
                total=total, initial=start, file=self._file, dynamic_ncols=True, unit="step"
            )

    def update(
        self,
        step: int,
        scalars: Mapping[str, Any] | None = None,
        images_per_s: float | None = None,
    ) -> None:
        """Call after every step with ``step`` steps done; with ``scalars`` at log intervals."""
        if self._quiet:
            return
        texts = [f"{name} {float(value):.4g}" for name, value in (scalars or {}).items()]
        if images_per_s is not None:
            texts.append(f"{images_per_s:.1f} images/s")
        if self._bar is not None:
            if texts:
                self._bar.set_postfix_str(", ".join(texts), refresh=False)
            self._bar.update(step - self._bar.n)
        elif texts:
            line = f"step {step}/{self._total}  {', '.join(texts)}  ETA {self._eta(step)}"
            print(line, file=self._file, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _eta(self, step: int) -> str:
        done = step - self._start
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._begin) / done * max(self._total - step, 0)
        return tqdm.format_interval(seconds)


def _multi_writer(directory: Path, jsonl: JsonlWriter) -> Any:
    """clu's writer of both, or None (with one warning) where TensorFlow is absent."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its notice ignores the log level
    try:
        import tensorflow as tf
        from clu.metric_writers import MultiWriter, SummaryWriter
    except ImportError as error:
        _logger.warning(
            "No TensorBoard events: %s. %s is still written; pictures made while training are "
            "lost. To have both: pip install clu tensorflow-cpu tensorboard",
            error,
            JSONL,
        )
        return None
    # TensorFlow only writes files here; it would otherwise take the accelerator's memory.
    tf.config.set_visible_devices([], "GPU")
    return MultiWriter([SummaryWriter(str(directory)), jsonl])


def _truncate(path: Path, start_step: int) -> None:
    """Keeps the complete lines up to and including ``start_step``."""
    kept = []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            if number == len(lines):
                break  # a crash cut this line off
            raise UserError(
                f"{path}, line {number} is not a line of metrics: repair or remove the file."
            ) from None
        if step <= start_step:
            kept.append(line if line.endswith("\n") else line + "\n")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _json_number(value: Any) -> float | str:
    number = float(np.asarray(value).item())
    return number if math.isfinite(number) else str(number)

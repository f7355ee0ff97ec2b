"""Where a run's numbers go: ``metrics.jsonl``, TensorBoard events, one line on the terminal.

The writers have the interface of clu's ``MetricWriter``, method for method. They do not inherit
it, because ``clu.metric_writers`` imports TensorFlow, which a run never needs. tensorboard is
imported when its writer is made; where it is absent, ``metrics.jsonl`` is written all the same.
"""

import io
import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from codi_jax.typing import UserError

JSONL = "metrics.jsonl"
TENSORBOARD = "tensorboard"
Scalar = float | np.generic | np.ndarray | jax.Array  # a number, or an array of one element

_logger = logging.getLogger(__name__)


class SilentWriter:
    """clu's ``MetricWriter`` interface; what a subclass does not write passes unseen."""

    def write_summaries(self, step: int, values: object, metadata: object = None) -> None:
        """Raw summaries."""

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        """Numbers by name."""

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures [N, H, W, 3] by name."""

    def write_videos(self, step: int, videos: object) -> None:
        """Videos."""

    def write_audios(self, step: int, audios: object, *, sample_rate: int) -> None:
        """Sounds."""

    def write_texts(self, step: int, texts: object) -> None:
        """Texts."""

    def write_histograms(self, step: int, arrays: object, num_buckets: object = None) -> None:
        """Distributions."""

    def write_hparams(self, hparams: object) -> None:
        """Hyperparameters."""

    def flush(self) -> None:
        """Write out what is buffered."""

    def close(self) -> None:
        """Write everything out; nothing can be written afterwards."""


class JsonlWriter(SilentWriter):
    """One JSON object a line: ``{"step": 100, "loss": 0.25, ...}``; scalars only.

    Numbers that JSON lacks are the strings ``"nan"``, ``"inf"`` and ``"-inf"``, which
    ``float()`` reads back.

    Args:
      path: appended to; lines beyond ``start_step`` and a line cut off by a crash go first.
      start_step: the step of the restored checkpoint: what came after it will come again.
    """

    def __init__(self, path: Path, start_step: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _truncate(path, start_step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        """Numbers by name."""
        record = {name: _json_number(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": int(step), **record}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Write out what is buffered."""
        self._file.flush()

    def close(self) -> None:
        """Write everything out; nothing can be written afterwards."""
        self._file.close()


class EventsWriter(SilentWriter):
    """TensorBoard's event file, of scalars and pictures, by tensorboard's own protocol buffers.

    Args:
      directory: made if need be; the file has the name that TensorBoard looks for.

    Raises:
      ImportError: tensorboard is not installed.
    """

    def __init__(self, directory: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2
        self._tensor, self._types = tensor_pb2.TensorProto, types_pb2
        directory.mkdir(parents=True, exist_ok=True)
        host, now = socket.gethostname(), time.time_ns()
        name = f"events.out.tfevents.{now // 10**9:010d}.{host}.{os.getpid()}.{now % 10**9}"
        # tensorboard's EventFileWriter would import TensorFlow wherever it is installed.
        self._records = RecordWriter(open(directory / name, "wb"))  # noqa: SIM115 (see close)
        self._write(file_version="brain.Event:2")

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        """Each value a number or an array of one element."""
        for name, value in scalars.items():
            number = float(np.asarray(value).item())
            tensor = self._tensor(dtype=self._types.DT_FLOAT, float_val=[number])
            tensor.tensor_shape.SetInParent()  # a shape without dimensions
            self._add(step, name, "scalars", tensor)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures uint8 [N, H, W, 3], all N of them."""
        for name, pictures in images.items():
            height, width = pictures.shape[1:3]
            strings = [str(width).encode(), str(height).encode(), *map(_png, pictures)]
            tensor = self._tensor(dtype=self._types.DT_STRING, string_val=strings)
            tensor.tensor_shape.dim.add(size=len(strings))
            self._add(step, name, "images", tensor)

    def flush(self) -> None:
        """Write out what is buffered."""
        self._records.flush()

    def close(self) -> None:
        """Write everything out; nothing can be written afterwards."""
        self._records.close()

    def _add(self, step: int, name: str, plugin: str, tensor: object) -> None:
        """``plugin`` is the name of TensorBoard's dashboard."""
        metadata = self._summary.SummaryMetadata(plugin_data={"plugin_name": plugin})
        value = self._summary.Summary.Value(tag=name, metadata=metadata, tensor=tensor)
        self._write(step=int(step), summary=self._summary.Summary(value=[value]))

    def _write(self, **fields: object) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()  # seen while the run goes on, and whole when it is killed


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
        self._writers: list[SilentWriter] = []
        if jax.process_index() != 0:
            return
        self._writers.append(JsonlWriter(Path(workdir) / JSONL, start_step))
        if tensorboard:
            try:
                self._writers.append(EventsWriter(Path(workdir) / TENSORBOARD))
            except ImportError as error:
                _logger.warning(
                    "No TensorBoard events: %s. %s is still written; pictures made while "
                    "training are lost. To have both: pip install tensorboard",
                    error,
                    JSONL,
                )

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        """Each value a number or an array of one element; waits for arrays on the device."""
        if not self._writers:
            return
        numbers = {name: float(np.asarray(value).item()) for name, value in scalars.items()}
        for writer in self._writers:
            writer.write_scalars(step, numbers)

    def write_images(self, step: int, images: Mapping[str, np.ndarray | jax.Array]) -> None:
        """Pictures [N, H, W, 3], uint8 or float in [0, 1]; TensorBoard only."""
        arrays = {name: np.asarray(image) for name, image in images.items()}
        for name, array in arrays.items():
            if array.ndim != 4 or array.shape[-1] != 3:
                raise ValueError(f"images {name!r} have shape {array.shape}, not [N, H, W, 3].")
            if array.dtype != np.uint8:
                pixels = np.clip(array.astype(np.float32), 0.0, 1.0)
                arrays[name] = np.round(pixels * 255.0).astype(np.uint8)
        for writer in self._writers:
            writer.write_images(step, arrays)

    def flush(self) -> None:
        """Write out what is buffered."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Write everything out; nothing can be written afterwards."""
        for writer in self._writers:
            writer.close()
        self._writers = []


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
        scalars: Mapping[str, Scalar] | None = None,
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
        """Write everything out; nothing can be written afterwards."""
        if self._bar is not None:
            self._bar.close()

    def _eta(self, step: int) -> str:
        done = step - self._start
        if done <= 0:
            return "?"
        seconds = (time.monotonic() - self._begin) / done * max(self._total - step, 0)
        return tqdm.format_interval(seconds)


def _png(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


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
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _json_number(value: Scalar) -> float | str:
    number = float(np.asarray(value).item())
    return number if math.isfinite(number) else str(number)

import importlib.util
import inspect
import io
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.train import metrics
from codi_jax.train.metrics import MetricsWriter, Progress, SilentWriter
from codi_jax.typing import UserError


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_scalars_one_line_a_step(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write_scalars(1, {"loss": jnp.float32(0.25), "lr": 1e-4})
    writer.write_scalars(2, {"loss": np.array([0.5]), "images_per_s": 3})
    assert lines(tmp_path) == [  # readable while the run goes on
        {"step": 1, "loss": 0.25, "lr": 1e-4},
        {"step": 2, "loss": 0.5, "images_per_s": 3.0},
    ]
    writer.close()
    assert not (tmp_path / "tensorboard").exists()


def test_numbers_that_json_lacks_stay_readable(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    writer.write_scalars(1, {"a": float("nan"), "b": np.inf, "c": -np.inf})
    writer.close()

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(text, parse_constant=refuse)
    assert np.isnan(float(record["a"]))
    assert (float(record["b"]), float(record["c"])) == (np.inf, -np.inf)


def test_a_resumed_run_drops_what_will_come_again(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    for step in (10, 20, 30, 40):
        writer.write_scalars(step, {"loss": step})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "lo')  # killed while it wrote
    writer = MetricsWriter(tmp_path, tensorboard=False, start_step=20)
    writer.write_scalars(30, {"loss": -1})
    writer.close()
    assert [(r["step"], r["loss"]) for r in lines(tmp_path)] == [(10, 10), (20, 20), (30, -1)]


def test_a_cut_line_goes_even_if_no_step_does(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"ste')
    writer = MetricsWriter(tmp_path, tensorboard=False, start_step=5)
    writer.write_scalars(6, {"loss": 1})
    writer.close()
    assert [r["step"] for r in lines(tmp_path)] == [1, 6]


def test_a_damaged_file_is_not_thrown_away(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnotes\n{"step": 2}\n')
    with pytest.raises(UserError, match="line 2"):
        MetricsWriter(tmp_path, tensorboard=False, start_step=5)
    assert "notes" in (tmp_path / "metrics.jsonl").read_text()


def test_the_writers_have_the_interface_of_clu():
    """Read from its file: importing the package imports TensorFlow."""
    spec = importlib.util.find_spec("clu")
    if spec is None:
        pytest.skip("clu is not installed")
    file = Path(spec.origin).parent / "metric_writers" / "interface.py"
    interface = importlib.util.module_from_spec(
        importlib.util.spec_from_file_location("clu_interface", file)
    )
    interface.__spec__.loader.exec_module(interface)
    for name in interface.MetricWriter.__abstractmethods__:
        theirs = inspect.signature(getattr(interface.MetricWriter, name)).parameters
        ours = inspect.signature(getattr(SilentWriter, name)).parameters
        kinds = [[(p.name, p.kind) for p in parameters.values()] for parameters in (theirs, ours)]
        assert kinds[0] == kinds[1], name


def test_tensorboard_reads_scalars_and_pictures_and_no_one_imports_tensorflow(tmp_path):
    """TensorFlow is blocked in a process of its own, and its import would be an error there."""
    program = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "clu"):
            raise AssertionError(name + " is imported")

sys.meta_path.insert(0, Refuse())
import numpy as np
from codi_jax.train.metrics import MetricsWriter

writer = MetricsWriter(sys.argv[1])
for step in (3, 4):
    writer.write_scalars(step, {"loss": np.float32(0.5 * step), "rate": 1e-4})
ramp = np.linspace(-0.5, 1.5, 2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
writer.write_images(3, {"samples": ramp})
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert lines(tmp_path) == [
        {"step": 3, "loss": 1.5, "rate": 1e-4},
        {"step": 4, "loss": 2.0, "rate": 1e-4},
    ]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()  # written though the program neither flushed nor closed
    assert events.file_version == 2.0
    found = {name: events.Tensors(name) for name in ("loss", "rate")}
    assert [(e.step, make_ndarray(e.tensor_proto)) for e in found["loss"]] == [(3, 1.5), (4, 2.0)]
    assert make_ndarray(found["rate"][0].tensor_proto) == np.float32(1e-4)
    assert abs(found["loss"][0].wall_time - time.time()) < 600
    kinds = {
        name: events.SummaryMetadata(name).plugin_data.plugin_name
        for name in events.Tags()["tensors"]
    }
    assert kinds == {"loss": "scalars", "rate": "scalars", "samples": "images"}
    (pictures,) = events.Tensors("samples")
    width, height, *pngs = make_ndarray(pictures.tensor_proto)
    assert (width, height, len(pngs)) == (b"6", b"4", 2)
    ramp = np.linspace(-0.5, 1.5, 2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    decoded = cv2.imdecode(np.frombuffer(pngs[1], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decoded, np.round(np.clip(ramp[1], 0, 1) * 255))


def test_images_of_another_shape_are_refused(tmp_path):
    writer = MetricsWriter(tmp_path, tensorboard=False)
    with pytest.raises(ValueError, match=r"'grey' have shape \(1, 4, 4, 1\)"):
        writer.write_images(1, {"grey": np.zeros((1, 4, 4, 1))})
    writer.write_images(1, {"ok": np.zeros((1, 4, 4, 3), np.uint8)})  # no place for them: dropped
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_without_tensorboard_one_warning_and_the_jsonl(tmp_path, monkeypatch, caplog):
    # None makes an import raise ImportError; modules that are loaded already are found first.
    loaded = [name for name in sys.modules if name.startswith("tensorboard.")]
    for name in ("tensorboard", *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    with caplog.at_level(logging.WARNING):
        writer = MetricsWriter(tmp_path)
        writer.write_scalars(1, {"loss": 1.0})
        writer.write_images(1, {"a": np.zeros((1, 2, 2, 3))})
        writer.close()
    (record,) = caplog.records
    assert "pip install" in record.getMessage() and "TensorBoard" in record.getMessage()
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics.jax, "process_index", lambda: 1)
    writer = MetricsWriter(tmp_path)
    writer.write_scalars(1, {"loss": 1.0})
    writer.write_images(1, {"a": np.zeros((1, 2, 2, 3))})
    writer.flush()
    writer.close()
    stream = io.StringIO()
    progress = Progress(10, file=stream)
    progress.update(1, {"loss": 1.0})
    progress.close()
    assert list(tmp_path.iterdir()) == [] and stream.getvalue() == ""


def test_progress_without_a_terminal_is_a_line_at_each_log(monkeypatch):
    clock = iter([100.0, 120.0])  # 20 s for 2 of the 10 steps that are left
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = Progress(30, start=20, file=stream)
    progress.update(21)
    progress.update(22, {"loss": jnp.float32(0.12345), "d_x": 2}, images_per_s=12.34)
    progress.close()
    assert stream.getvalue() == (
        "step 22/30  loss 0.1235, d_x 2, 12.3 images/s  ETA 01:20\n"
    )  # fmt: skip


def test_progress_on_a_terminal_is_one_live_line():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(30, start=20, file=stream)
    progress.update(30, {"loss": 0.5}, images_per_s=2.0)
    progress.close()
    last = stream.getvalue().rsplit("\r", 1)[-1]
    assert "30/30" in last and "loss 0.5, 2.0 images/s" in last
    assert stream.getvalue().count("\n") == 1  # at close only

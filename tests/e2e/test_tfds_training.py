"""A TensorFlow data set, prepared offline, trains."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from codi_jax.run.train import train
from configs import autoencoder

REASON = "TensorFlow data sets are prepared with TensorFlow: pip install -e '.[tfds]'"
pytest.importorskip("tensorflow", reason=REASON)
tfds = pytest.importorskip("tensorflow_datasets", reason=REASON)


def test_a_prepared_data_set_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data")
    import tiny_flowers

    tiny_flowers.prepare(tmp_path / "tfds")
    tfds.core.add_data_dir(str(tmp_path / "tfds"))
    # The programs of test_tiny's first run: they are compiled once.
    config = autoencoder.get_config("tiny")
    config.batch_size, config.tensorboard = 8, False
    config.data.source = "tfds:tiny_flowers"
    with jax.numpy_dtype_promotion("standard"):
        train(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = {step["step"]: step["loss"] for step in map(json.loads, lines) if "loss" in step}
    assert set(losses) == {2, 4} and np.isfinite(list(losses.values())).all()
    assert (tmp_path / "run" / "results.json").is_file()

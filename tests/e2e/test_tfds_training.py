"""A TensorFlow data set, prepared offline, trains."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from codi_jax import runner
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
        runner.train(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(line).get("loss", 0.0)) for line in lines)
    assert (tmp_path / "run" / "results.json").is_file()

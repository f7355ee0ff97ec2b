"""A TensorFlow data set, prepared offline, trains."""

import json
from pathlib import Path

import jax
import pytest

from codi_jax import runner
from configs import sr

tfds = pytest.importorskip("tensorflow_datasets")


def test_a_prepared_data_set_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data")
    import tiny_flowers

    tiny_flowers.prepare(tmp_path / "tfds")
    tfds.core.add_data_dir(str(tmp_path / "tfds"))
    config = sr.get_config("tiny")
    config.steps, config.tensorboard = 2, False
    config.data.source = "tfds:tiny_flowers"
    with jax.numpy_dtype_promotion("standard"):
        runner.train(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["images"] == 2 and results["metrics"]["codi"]["1"]["psnr"] > 0

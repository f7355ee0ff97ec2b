"""The command line of codi_jax.convert on the shipped models."""

import json
import shutil

import numpy as np
import pytest

from codi_jax import convert
from codi_jax.checkpoint.directory import load_pipeline
from codi_jax.checkpoint.hub import ASSETS
from codi_jax.trees import flatten


def test_inspect_says_what_it_is_and_what_fits(capsys):
    assert convert.main(["inspect", "demo"]) == 0
    out = capsys.readouterr().out
    assert "sr x4, adapter mix" in out and "F16" in out and "v_prediction" in out
    assert "codi_jax.sample --checkpoint demo" in out
    assert convert.main(["inspect", str(ASSETS / "prior")]) == 0
    out = capsys.readouterr().out
    assert "unconditional prior" in out and "configs/sr.py" in out
    assert convert.main(["inspect", str(ASSETS / "prior" / "vae")]) == 0
    assert "AutoencoderKL" in capsys.readouterr().out


def test_counts_are_those_of_the_parameters(capsys):
    convert.main(["inspect", "prior"])
    out = capsys.readouterr().out
    for part, params in load_pipeline(ASSETS / "prior").params.items():
        count = sum(leaf.size for leaf in flatten(params).values())
        assert any(part in line and f"{count:,}" in line for line in out.splitlines())


def test_export_then_import_is_the_identity(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    assert convert.main(["export", "demo", str(one)]) == 0
    assert "trust_remote_code" in capsys.readouterr().out
    assert convert.main(["import", str(one), str(two)]) == 0
    for file in sorted(one.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()
    first, again = (flatten(load_pipeline(path).params) for path in (ASSETS / "demo", two))
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[path])
    index = json.loads((two / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "CoDiPipeline"]
    assert (two / "pipeline.py").is_file() and (two / "adapter" / "mix_adapter.py").is_file()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere"),
        ("pickle.ckpt", "safetensors"),
        ("part", "AutoencoderKL"),
        ("truncated", "truncated"),
    ],
)
def test_messages(source, message, tmp_path, capsys):
    (tmp_path / "pickle.ckpt").write_bytes(b"\x80\x02}q\x00.")
    shutil.copytree(ASSETS / "prior" / "vae", tmp_path / "part")
    shutil.copytree(ASSETS / "prior", tmp_path / "truncated")
    weights = tmp_path / "truncated" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-100])
    target = tmp_path / "out"
    assert convert.main(["import", str(tmp_path / source), str(target)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert not target.exists()

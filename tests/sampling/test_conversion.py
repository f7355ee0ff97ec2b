"""Import, export and inspection of the shipped models."""

import json
import shutil

import numpy as np
import pytest

from codi_jax.checkpoint.directory import load_directory
from codi_jax.checkpoint.hub import ASSETS
from codi_jax.sampling.conversion import Conversion, export_model, import_checkpoint, inspect
from codi_jax.trees import flatten
from codi_jax.typing import UserError


def test_inspect_says_what_it_is_and_what_fits():
    assert (out := inspect("demo"))
    assert "sr x4, adapter mix" in out and "F16" in out and "v_prediction" in out
    assert "codi_jax.sample --checkpoint demo" in out
    assert (out := inspect(str(ASSETS / "prior")))
    assert "unconditional prior" in out and "configs/sr.py" in out
    assert "AutoencoderDC" in inspect(str(ASSETS / "prior" / "vae"))


def test_counts_are_those_of_the_parameters():
    out = inspect("prior")
    for part, params in load_directory(ASSETS / "prior").params.items():
        count = sum(leaf.size for leaf in flatten(params).values())
        assert any(part in line and f"{count:,}" in line for line in out.splitlines())


def test_export_then_import_is_the_identity(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert "trust_remote_code" in export_model("demo", one, Conversion())
    import_checkpoint(str(one), two, Conversion())
    for file in sorted(one.rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()
    first, again = (flatten(load_directory(path).params) for path in (ASSETS / "demo", two))
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
        ("part", "AutoencoderDC"),
        ("truncated", "truncated"),
    ],
)
def test_messages(source, message, tmp_path):
    (tmp_path / "pickle.ckpt").write_bytes(b"\x80\x02}q\x00.")
    shutil.copytree(ASSETS / "prior" / "vae", tmp_path / "part")
    shutil.copytree(ASSETS / "prior", tmp_path / "truncated")
    weights = tmp_path / "truncated" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-100])
    target = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        import_checkpoint(str(tmp_path / source), target, Conversion())
    assert not target.exists()

"""Import and export of the shipped models."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from codi_jax.checkpoint.directory import load_directory
from codi_jax.checkpoint.hub import ASSETS
from codi_jax.checkpoint.single_file import Reading
from codi_jax.sampling.conversion import (
    Conversion,
    export_model,
    import_checkpoint,
    kind_of,
)
from codi_jax.trees import flatten
from codi_jax.typing import UserError
from tests.checkpoint.test_directory import model_with
from tests.models.tiny_unets import TEXT


def test_export_then_import_is_the_identity(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert "trust_remote_code" in export_model("demo", one, Conversion(license="apache-2.0"))
    card = (one / "README.md").read_text()
    assert "base_model" not in card and 'license: "apache-2.0"' in card and "| demo |" in card
    import_checkpoint(str(one), two, Conversion())
    for file in sorted(one.rglob("*")):
        if file.is_file() and file.name != "README.md":
            assert file.read_bytes() == (two / file.relative_to(one)).read_bytes()
    first, again = (flatten(load_directory(path).params) for path in (ASSETS / "demo", two))
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, again[path])
    index = json.loads((two / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "CoDiPipeline"]
    assert (two / "pipeline.py").is_file() and (two / "adapter" / "mix_adapter.py").is_file()


def test_import_takes_what_sample_takes(tmp_path):
    assert "prior" in import_checkpoint("prior", tmp_path / "one", Conversion())
    with pytest.raises(UserError, match="--prediction_type.*single files alone"):
        import_checkpoint("prior", tmp_path / "two", Conversion(), Reading(family="sd1"))
    workdir = tmp_path / "run"
    (tmp_path / "one").rename((workdir).mkdir() or workdir / "model")
    assert "prior" in import_checkpoint(str(workdir), tmp_path / "two", Conversion())
    assert (tmp_path / "two" / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("channels", "kind"),
    [(4, "a text-to-image prior"), (8, "an InstructPix2Pix prior"), (9, "an inpainting prior")],
)
def test_what_a_prior_reads_is_said(channels, kind):
    unet = dataclasses.replace(TEXT, in_channels=channels)
    assert kind_of(model_with("none", unet)) == kind


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

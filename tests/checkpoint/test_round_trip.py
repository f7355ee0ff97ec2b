"""Original layout -> our import -> our export -> back to the original layout -> our import."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codi_jax.checkpoint import single_file
from codi_jax.checkpoint.directory import load_directory, save_directory
from codi_jax.checkpoint.files import INDEX, load_json
from codi_jax.checkpoint.single_file import Reading, convert_single_file
from tests.checkpoint import ldm_files
from tests.checkpoint.ldm_inverse import to_original

pytestmark = pytest.mark.usefixtures("unchecked")  # which makes it quicker
UNUSED = ("position_ids", "logit_scale", "sigmas", "betas", "alphas_cumprod")


def parts(directory):
    return {file.parent.name: load_file(file) for file in directory.glob("*/*.safetensors")}


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("family", "channels"),
    [("sd1", 4), ("sd2", 4), ("sdxl", 4), ("sd1", 9), ("sd1", 8), ("sd2", 9), ("sdxl", 8)],
)
def test_every_family(family, channels, tmp_path, monkeypatch):
    monkeypatch.setattr(single_file, "check_fits", lambda *_: None)  # it takes its time
    rng = np.random.default_rng(0)
    shapes = ldm_files.tiny(family, channels)
    first = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    reading = Reading(prediction_type=ldm_files.TYPE[family])

    def imported(tensors, name):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        convert_single_file(tmp_path / f"{name}.safetensors", tmp_path / name, reading=reading)
        return tmp_path / name

    one = imported(first, "one")
    save_directory(tmp_path / "export", load_directory(one))
    exported = parts(tmp_path / "export")
    back = to_original(exported, family)
    for name, array in back.items():
        if name in first:  # under another name, it is compared after the next import
            np.testing.assert_array_equal(array, first[name], err_msg=name)
    gone = {name for name in first if name not in back and not name.endswith(UNUSED)}
    assert all("text_projection" in n or "resblocks.23." in n for n in gone)
    again = parts(imported(back, "two"))
    assert again.keys() == exported.keys() == parts(one).keys()
    for part, tensors in again.items():
        equal(tensors, exported[part])
        equal(tensors, parts(one)[part])
    classes = {load_json(tmp_path / d / INDEX)["_class_name"] for d in ("one", "export", "two")}
    assert len(classes) == 1
    task = {4: "", 8: "InstructPix2Pix", 9: "Inpaint"}[channels]
    assert classes.pop().endswith(f"{task}Pipeline")

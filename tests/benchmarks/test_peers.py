"""What the comparison with Real-ESRGAN counts and refuses; its network is not run here."""

import sys

import numpy as np
import pytest

from benchmarks import peers
from codi_jax.data.images import save_image

PARAM = """7767517
4 4
Input                    input.1                  0 1 data
Convolution              Conv_0                   1 1 data 703 0=64 1=3 4=1 5=1 6=1728
Convolution              Conv_1                   1 1 703 705 0=3 1=3 4=1 5=0 6=1728 9=2
Interp                   Resize_2                 1 1 705 output 0=1 1=2.0e+00 2=2.0e+00
"""


def test_parameters_are_the_weights_and_biases_of_the_convolutions():
    assert peers.count_parameters(PARAM) == 3 * 3 * 3 * 64 + 64 + 3 * 3 * 64 * 3


def test_no_other_file_is_taken_for_the_model(tmp_path):
    for name in peers.FILES:
        (tmp_path / name).write_text(PARAM)
    with pytest.raises(SystemExit, match="is not Real-ESRGAN's file; remove it"):
        peers.model(tmp_path)


def test_folders_that_do_not_fit(tmp_path, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["peers", *arguments])
        with pytest.raises(SystemExit) as error:
            peers.main()
        return str(error.value)

    (tmp_path / "in").mkdir()
    given = (f"--input={tmp_path / 'in'}", f"--output={tmp_path}")
    assert "no picture there" in run(*given)
    save_image(tmp_path / "in" / "0.png", np.zeros((4, 4, 3), np.uint8))
    assert "exists; give another, nothing is replaced" in run(*given)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]

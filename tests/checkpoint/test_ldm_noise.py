"""What a single file predicts, from its markers and metadata and from what the user says."""

from pathlib import Path

import pytest

from codi_jax.checkpoint.ldm_families import SD1, SD2, SDXL
from codi_jax.checkpoint.ldm_noise import read_noise
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.typing import UserError

MARKS = {"v_pred": (0,), "ztsnr": (0,)}
SPEC = "modelspec.prediction_type"


@pytest.mark.parametrize(
    ("family", "marks", "metadata", "said", "want"),
    [
        (SDXL, ("v_pred", "ztsnr"), {}, (None, None), ("v_prediction", True)),
        (SDXL, ("v_pred",), {}, (None, None), ("v_prediction", False)),
        (SD1, ("v_pred", "ztsnr"), {}, ("v_prediction", None), ("v_prediction", True)),
        (SDXL, ("v_pred", "ztsnr"), {}, ("epsilon", False), ("epsilon", False)),
        (SD1, (), {}, ("v_prediction", True), ("v_prediction", True)),
        (SD2, (), {SPEC: "v"}, (None, None), ("v_prediction", False)),
        (SD2, (), {SPEC: "Epsilon"}, (None, None), ("epsilon", False)),
        (SDXL, (), {SPEC: "something"}, (None, None), ("epsilon", False)),
        (SDXL, (), {}, (None, None), ("epsilon", False)),
    ],
)
def test_what_is_predicted(family, marks, metadata, said, want):
    shapes = {mark: MARKS[mark] for mark in marks}
    noise = read_noise(Path("x"), family, shapes, metadata, *said)
    assert (noise.prediction_type, noise.zero_terminal_snr) == want
    assert want[0] in noise.notes[0]
    config = noise.scheduler()
    assert schedule_from_config(config).zero_terminal_snr == want[1]
    spacing = "trailing" if want[1] else "leading"
    assert SamplerConfig.from_config(config).timestep_spacing == spacing


@pytest.mark.parametrize(
    ("family", "marks", "said", "message"),
    [
        (SD2, (), (None, None), "2.x.*--prediction_type=v_prediction.*768"),
        (SDXL, ("ztsnr",), (None, None), "zero terminal SNR.*--nozero_terminal_snr"),
        (SDXL, ("v_pred", "ztsnr"), ("epsilon", None), "Give --prediction_type=v_prediction"),
        (SD1, (), (None, True), "zero terminal SNR cannot work with epsilon"),
        (SD1, (), ("flow", None), "'flow' is unknown"),
    ],
)
def test_what_cannot_be(family, marks, said, message):
    with pytest.raises(UserError, match=message):
        read_noise(Path("x"), family, {mark: MARKS[mark] for mark in marks}, {}, *said)

"""What the U-Net of a single file predicts, and at which noise levels: said, or guessed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codi_jax.checkpoint.ldm_families import SD2, Family
from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.typing import UserError, check_choice

PREDICTION_TYPES = ("epsilon", "v_prediction")
#: Empty tensors by which other tools mark v-prediction and a schedule that ends in pure noise.
_V_PRED, _ZERO_SNR = "v_pred", "ztsnr"
#: What the metadata that tools write into safetensors files calls it (ModelSpec).
_METADATA = "modelspec.prediction_type"
_SPEC = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
}
#: How the original code spaces and ends its steps; diffusers reads it, we do not.
_SAMPLER = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}


class PredictionUnknown(UserError):
    """Neither the file nor the user says what the network predicts."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """What the network predicts, and of what.

    Attributes:
        prediction_type: in diffusers' words.
        zero_terminal_snr: whether the noisiest level holds nothing of the picture.
        notes: where both come from, for people.
    """

    prediction_type: str
    zero_terminal_snr: bool
    notes: tuple[str, ...]

    def scheduler(self) -> dict[str, Any]:
        """The content of ``scheduler_config.json``."""
        schedule = DiscreteSchedule(rescale_betas_zero_snr=self.zero_terminal_snr)
        config = schedule.to_config(self.prediction_type) | _SAMPLER
        # With zero terminal SNR the first step must start at the last level.
        return config | ({"timestep_spacing": "trailing"} if self.zero_terminal_snr else {})


def read_noise(
    path: Path,
    family: Family,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    prediction_type: str | None,
    zero_terminal_snr: bool | None,
) -> Noise:
    """Read it off the file's markers and metadata; what the user says comes first.

    Args:
        path: for messages.
        family: whose weights they are.
        shapes: of the file's tensors.
        metadata: what the file says of itself.
        prediction_type: one of :data:`PREDICTION_TYPES`, if the user says so.
        zero_terminal_snr: likewise.

    Raises:
        PredictionUnknown: neither the user nor the file says what a Stable Diffusion 2.x predicts.
        UserError: zero terminal SNR with epsilon; an unknown prediction type.
    """
    predicts, why = _prediction_type(path, family, shapes, metadata, prediction_type)
    zero = _ZERO_SNR in shapes if zero_terminal_snr is None else zero_terminal_snr
    if zero and predicts == "epsilon":
        raise UserError(
            f"{path}: zero terminal SNR cannot work with epsilon prediction, for at the noisiest "
            "level the noise says nothing about the picture. Give "
            "--prediction_type=v_prediction, or --nozero_terminal_snr."
        )
    notes = [f"prediction type: {predicts}, {why}"]
    if zero or zero_terminal_snr is not None:
        said = f"marked by {_ZERO_SNR}" if zero_terminal_snr is None else "as you said"
        notes.append(f"zero terminal SNR: {'yes' if zero else 'no'}, {said}")
    return Noise(predicts, zero, tuple(notes))


def _prediction_type(
    path: Path,
    family: Family,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    said: str | None,
) -> tuple[str, str]:
    """What is predicted, and how that is known."""
    if said is not None:
        check_choice("--prediction_type", said, PREDICTION_TYPES)
        return said, "as you said"
    if _V_PRED in shapes:
        return "v_prediction", f"marked by {_V_PRED}"
    spec = _SPEC.get(metadata.get(_METADATA, "").lower())
    if spec is not None:
        return spec, f"by the file's {_METADATA}"
    if family is SD2:
        raise PredictionUnknown(
            f"{path} is {family.title}, whose weights do not tell what the network predicts: give "
            "--prediction_type=v_prediction for the models of 768 pixels, "
            "--prediction_type=epsilon for the base models of 512 and for inpainting."
        )
    return "epsilon", "as is usual (--prediction_type)"

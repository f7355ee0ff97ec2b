"""Families of Stable Diffusion, and how a single file divides into their models."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from codi_jax.checkpoint.ldm_layout import Section
from codi_jax.typing import UserError

PREDICTION_TYPES = ("epsilon", "v_prediction")
_UNET, _EMA, _VAE = "model.diffusion_model.", "model_ema.", "first_stage_model."
# What training leaves in a file beside parameters: the tables of the schedule, counters, constants.
_IGNORED = re.compile(
    r"betas|(\w+_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|denoiser\.sigmas|model_ema\..*|first_stage_model\.loss\..*"
    r"|(cond_stage_model|conditioner)\..*\b(position_ids|logit_scale|attn_mask)"
)


@dataclasses.dataclass(frozen=True)
class Family:
    """What the weights of a family do not tell.

    Attributes:
        title: for people.
        text_encoders: part -> prefix of its tensors in the file.
        scaling_factor: of the latents.
        repository: one on Hugging Face that has the family's tokenizer.
        pipeline: the first words of diffusers' pipeline class.
    """

    title: str
    text_encoders: dict[str, str]
    scaling_factor: float
    repository: str
    pipeline: str = "StableDiffusion"

    @property
    def tokenizers(self) -> list[str]:
        """Folders of the tokenizers, one for each text encoder."""
        return [name.replace("text_encoder", "tokenizer") for name in self.text_encoders]


SD1 = Family(
    "Stable Diffusion 1.x",
    {"text_encoder": "cond_stage_model.transformer."},
    0.18215,
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
)
SD2 = Family(
    "Stable Diffusion 2.x",
    {"text_encoder": "cond_stage_model.model."},
    0.18215,
    "stabilityai/stable-diffusion-2-1",
)
SDXL = Family(
    "Stable Diffusion XL",
    {
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
    0.13025,
    "stabilityai/stable-diffusion-xl-base-1.0",
    "StableDiffusionXL",
)


def find_family(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """By the prefixes: those of U-Net, autoencoder and all text encoders must be there.

    Raises UserError otherwise.
    """
    for family in (SD1, SD2, SDXL):
        prefixes = (_UNET, _VAE, *family.text_encoders.values())
        if all(any(name.startswith(prefix) for name in shapes) for prefix in prefixes):
            return family
    first = sorted({".".join(name.split(".")[:2]) for name in shapes})
    raise UserError(
        f"{path} is no whole Stable Diffusion 1.x, 2.x or XL checkpoint in the original layout: "
        f"that holds {_UNET}*, {_VAE}* and cond_stage_model.* or conditioner.embedders.*; this "
        f"file holds {', '.join(first[:6])}{', ...' if len(first) > 6 else ''}. Give a full "
        "checkpoint, or a directory in diffusers' format."
    )


def check_prediction_type(path: Path, family: Family, prediction_type: str | None) -> str:
    """The default where there is one. Raises UserError for 2.x without, or an unknown type."""
    if prediction_type is None:
        if family is SD2:
            raise UserError(
                f"{path} is {family.title}, whose weights do not tell what the network predicts: "
                "give prediction_type='v_prediction' for the models of 768 pixels, 'epsilon' for "
                "the base models of 512 and for inpainting."
            )
        return "epsilon"
    if prediction_type not in PREDICTION_TYPES:
        raise UserError(
            f"prediction_type={prediction_type!r}: choose from {', '.join(PREDICTION_TYPES)}."
        )
    return prediction_type


def averaged_unet(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the file holds a running average (EMA) of the U-Net, to be taken before the plain."""
    return any(name.startswith(f"{_EMA}diffusion_model") for name in shapes)


def read_sections(
    path: Path, shapes: Mapping[str, tuple[int, ...]], family: Family
) -> dict[str, Section]:
    """The tensors of each part of the family."""
    prefixes = {"unet": _UNET, "vae": _VAE, **family.text_encoders}
    sections = {}
    for part, prefix in prefixes.items():
        names = {
            name.removeprefix(prefix): name
            for name in shapes
            if name.startswith(prefix) and not _IGNORED.fullmatch(name)
        }
        if part == "unet" and averaged_unet(shapes):
            # The averages are named without the leading "model." and without any dots.
            names = {
                inner: _EMA + name.removeprefix("model.").replace(".", "")
                for inner, name in names.items()
            }
        sections[part] = Section(path, prefix, names, shapes)
    return sections


def check_all_used(
    path: Path, shapes: Mapping[str, tuple[int, ...]], sections: Mapping[str, Section]
) -> None:
    """Raises UserError if the file holds what belongs to no part: then it is another model."""
    known = {section.names.get(name) for section in sections.values() for name in section.used}
    left = [
        name
        for name in shapes
        # Of a network that is there twice, the plain one is left.
        if name not in known
        and not _IGNORED.fullmatch(name)
        and not (name.startswith(_UNET) and name.removeprefix(_UNET) in sections["unet"].used)
    ]
    if left:
        raise UserError(
            f"{path} holds {len(left)} tensors that are no part of Stable Diffusion 1.x, 2.x or "
            f"XL: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}. Such a model is not "
            "supported; what other tools have added can be removed."
        )

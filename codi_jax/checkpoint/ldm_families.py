"""Families of Stable Diffusion, and how a single file divides into their models."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from codi_jax.checkpoint.ldm_averages import EMA, averaged_names
from codi_jax.checkpoint.ldm_layout import Section
from codi_jax.typing import UserError, check_choice

UNET, _VAE = "model.diffusion_model.", "first_stage_model."
# What training leaves in a file beside parameters: the tables of the schedule, counters, constants.
_IGNORED = re.compile(
    r"betas|(\w+_)?alphas_cumprod(_prev)?|posterior_\w+|lvlb_weights|logvar|scale_factor"
    r"|denoiser\.sigmas|model_ema\..*|first_stage_model\.loss\..*"
    r"|(cond_stage_model|conditioner)\..*\b(position_ids|logit_scale|attn_mask)"
    r"|v_pred|ztsnr"
)


@dataclasses.dataclass(frozen=True)
class Text:
    """A text encoder of a family.

    Attributes:
        prefix: of its tensors in the file.
        hidden_act: its activation, which the weights do not tell.
        layers: how many layers the family reads of one that has a layer more; 0 for all.
        projection: whether the pooled text is projected, and read.
    """

    prefix: str
    hidden_act: str = "gelu"
    layers: int = 0
    projection: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
    """What the weights of a family do not tell.

    Attributes:
        title: for people.
        text_encoders: by part.
        scaling_factor: of the latents.
        repository: one on Hugging Face that has the family's tokenizer.
    """

    title: str
    text_encoders: dict[str, Text]
    scaling_factor: float
    repository: str

    @property
    def tokenizers(self) -> list[str]:
        """Folders of the tokenizers, one for each text encoder."""
        return [name.replace("text_encoder", "tokenizer") for name in self.text_encoders]


SD1 = Family(
    "Stable Diffusion 1.x",
    {"text_encoder": Text("cond_stage_model.", "quick_gelu")},
    0.18215,
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
)
SD2 = Family(
    "Stable Diffusion 2.x",
    {"text_encoder": Text("cond_stage_model.", layers=23)},
    0.18215,
    "stabilityai/stable-diffusion-2-1",
)
SDXL = Family(
    "Stable Diffusion XL",
    {
        "text_encoder": Text("conditioner.embedders.0.", "quick_gelu"),
        "text_encoder_2": Text("conditioner.embedders.1.", projection=True),
    },
    0.13025,
    "stabilityai/stable-diffusion-xl-base-1.0",
)
#: By the word that a user says.
FAMILIES = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}


def find_family(
    path: Path, shapes: Mapping[str, tuple[int, ...]], said: str | None = None
) -> Family:
    """The family of a file: by its parts, and 1.x from 2.x by the U-Net's projections.

    Args:
        path: for messages.
        shapes: of the file's tensors.
        said: a key of :data:`FAMILIES`, if the user knows it.

    Raises:
        UserError: U-Net, autoencoder or a text encoder is absent.
    """
    if said is not None:
        check_choice("--family", said, FAMILIES)
        candidates = [FAMILIES[said]]
    else:
        # Projections around the attention: convolutions in 1.x, linear since 2.0.
        ends = [len(s) for n, s in shapes.items() if re.search(r"proj_in\.?weight$", n)]
        candidates = [SDXL, SD1 if 4 in ends or not ends else SD2]
    for family in candidates:
        prefixes = (_VAE, *(text.prefix for text in family.text_encoders.values()))
        unets = any(name.startswith((UNET, EMA)) for name in shapes)
        if unets and all(any(name.startswith(prefix) for name in shapes) for prefix in prefixes):
            return family
    first = sorted({".".join(name.split(".")[:2]) for name in shapes})
    what = candidates[0].title if said else "Stable Diffusion 1.x, 2.x or XL"
    raise UserError(
        f"{path} is no whole {what} checkpoint in the original layout: "
        f"that holds {UNET}*, {_VAE}* and cond_stage_model.* or conditioner.embedders.0.* and "
        f".1.*; this file holds {', '.join(first[:6])}{', ...' if len(first) > 6 else ''}. Give a "
        "full checkpoint, or a directory in diffusers' format."
    )


def read_sections(
    path: Path, shapes: Mapping[str, tuple[int, ...]], family: Family, *, averaged: bool
) -> dict[str, Section]:
    """The tensors of each part of the family; of the U-Net's running average if ``averaged``."""
    prefixes = {"unet": UNET, "vae": _VAE}
    prefixes |= {part: text.prefix for part, text in family.text_encoders.items()}
    sections = {}
    for part, prefix in prefixes.items():
        names = {
            name.removeprefix(prefix): name
            for name in shapes
            if name.startswith(prefix) and not _IGNORED.fullmatch(name)
        }
        if part == "unet" and averaged:
            names = averaged_names(path, shapes, names)
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
        and not (name.startswith(UNET) and name.removeprefix(UNET) in sections["unet"].used)
    ]
    if any(name.endswith(("scaled_fp8", "scale_weight")) for name in left):
        raise UserError(
            f"{path} holds scaled float8 weights ({left[0]}), which are only right together with "
            "their scales. Get the checkpoint in float16, or in plain float8."
        )
    if left:
        raise UserError(
            f"{path} holds {len(left)} tensors that are no part of Stable Diffusion 1.x, 2.x or "
            f"XL: {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}. Such a model is not "
            "supported; what other tools have added can be removed."
        )

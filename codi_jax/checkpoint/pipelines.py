"""Which pipeline of diffusers a prior is run with."""

import re

#: A directory that no pipeline of diffusers runs: its parts load one by one.
NO_PIPELINE = "CoDiModel"
#: Input channels of the U-Net -> what the pipeline's class has in its name.
TASKS = {4: "", 8: "InstructPix2Pix", 9: "Inpaint"}
# Those whose parts are all read here and written again.
_PRIOR = re.compile(
    r"StableDiffusion(?P<xl>XL)?(?P<task>Img2Img|Inpaint|InstructPix2Pix)?Pipeline"
    r"|LatentConsistencyModel(Img2Img)?Pipeline"
)


def prior_pipeline(channels: int, *, xl: bool, found: object = None) -> str:
    """The class of a prior's pipeline.

    Args:
        channels: that the U-Net reads.
        xl: whether it is Stable Diffusion XL.
        found: the class that the prior came with; it is kept if it fits.

    Returns:
        The class, or :data:`NO_PIPELINE` for a U-Net of other channels than :data:`TASKS` has.
    """
    # Stable Diffusion's files were also written by diffusers' former Flax classes.
    name = found.removeprefix("Flax") if isinstance(found, str) else ""
    match = _PRIOR.fullmatch(name)
    if match and bool(match["xl"]) == xl:
        fitting = {"Inpaint": (4, 9), "InstructPix2Pix": (8,)}.get(match["task"] or "", (4,))
        if channels in fitting:
            return name
    if channels not in TASKS:
        return NO_PIPELINE
    return f"StableDiffusion{'XL' if xl else ''}{TASKS[channels]}Pipeline"

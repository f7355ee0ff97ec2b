"""Colour profiles (ICC): pictures become sRGB, the space that all networks here work in."""

import functools
import io

import numpy as np
from absl import logging
from PIL import Image, ImageCms

#: A profile's colour space -> the mode of the pictures that it describes.
_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: Profiles that move no probe by more levels than this are sRGB in another wording.
_SAME = 2
_NOTES = 10  # so many unusable profiles are said


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture in sRGB.

    Args:
        image: without transparency.
        profile: the ICC profile of its file. Without one the values are taken as sRGB (CMYK as
            plain ink on white). So are they, with a warning, where it cannot be used.

    Returns:
        Mode "RGB", of the same size.
    """
    mode = image.mode if image.mode in _MODES.values() else "RGB"
    if profile is None or image.mode == "1":
        return _in_mode(image, "RGB")
    read_as, transform = _transform(profile, mode)
    if transform is None:
        return _in_mode(image, "RGB")
    converted = ImageCms.applyTransform(_in_mode(image, read_as), transform)
    assert converted is not None  # None where it works in place
    return converted


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image itself where it has the mode: Pillow would copy it."""
    return image if image.mode == mode else image.convert(mode)


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """How a profile is applied to pictures of a mode.

    Returns:
        The mode that the transform reads, and the transform; None where the values stay.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = _MODES.get(source.profile.xcolor_space, source.profile.xcolor_space)
        # Grey pictures often have the profile of their colourful neighbours.
        if described != mode and (mode, described) != ("L", "RGB"):
            raise ValueError(f"it is for {described.strip()}, the pixels are {mode}")
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, described, "RGB")
        return described, None if _keeps_values(transform, described) else transform
    except Exception as error:  # littlecms's and Pillow's errors are of many types
        logging.log_first_n(
            logging.WARNING,
            "a colour profile of %d bytes cannot be used (%s): the values are taken as sRGB",
            _NOTES,
            *(len(profile), error),
        )
        return mode, None


def _keeps_values(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the transform leaves the colours of a coarse grid as they are."""
    if mode != "RGB":
        return False
    levels = np.linspace(0, 255, 8).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(8, 64, 3)
    moved = ImageCms.applyTransform(Image.fromarray(grid), transform)
    return bool(np.abs(np.asarray(moved).astype(int) - grid).max() <= _SAME)

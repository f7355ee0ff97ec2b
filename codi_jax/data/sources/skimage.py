"""Photos that need no download."""

import importlib.util
import operator
from pathlib import Path

from codi_jax.data import images
from codi_jax.data.regular_files import stamp_of
from codi_jax.data.sources.base import Element
from codi_jax.typing import UserError

#: The photos inside scikit-image, with captions. The two motorcycle images are one scene
#: seen by two cameras, so they stay on one side.
SKIMAGE_PHOTOS: dict[str, dict[str, str]] = {
    "train": {
        "astronaut.png": "a portrait of an astronaut in an orange suit",
        "hubble_deep_field.jpg": "galaxies in deep space",
        "ihc.png": "stained tissue under a microscope",
        "motorcycle_left.png": "a motorcycle in a garage",
        "motorcycle_right.png": "a motorcycle in a garage",
        "retina.jpg": "the retina of a human eye",
        "rocket.jpg": "a rocket on its launch pad",
    },
    "eval": {
        "chelsea.png": "the face of a tabby cat",
        "coffee.png": "a cup of coffee on a wooden table",
    },
}


class SkimageSource:
    """Photos that come with scikit-image: an embedded data set that needs no download.

    Args:
        split: "train" or "eval"; no photo is in both.
    """

    def __init__(self, split: str) -> None:
        if split not in SKIMAGE_PHOTOS:
            raise UserError(f"split {split!r} is unknown; use one of {', '.join(SKIMAGE_PHOTOS)}.")
        # Found without importing scikit-image, which takes a second in every worker.
        spec = importlib.util.find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                "data source 'skimage' needs scikit-image; run `pip install scikit-image`."
            )
        self.root = Path(spec.submodule_search_locations[0]) / "data"
        self._photos = sorted(SKIMAGE_PHOTOS[split].items())
        missing = [name for name, _ in self._photos if not (self.root / name).is_file()]
        if missing:
            raise UserError(
                f"data source 'skimage': {', '.join(missing)} not in {self.root}; "
                "run `pip install 'scikit-image>=0.26'` or give a folder of images."
            )

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> Element:
        name, text = self._photos[operator.index(index)]
        return {"image": images.load_image(self.root / name), "text": text, "name": name}

    def made_of(self, index: int) -> str | None:
        """The photo's file with its stamp, and its caption."""
        name, text = self._photos[operator.index(index)]
        return repr((str(self.root), name, text, stamp_of(self.root / name)))

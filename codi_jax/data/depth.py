"""Depth of a photo, by an estimator of the transformers library (needs the extra `depth`)."""

from typing import Any

import cv2
import numpy as np
from PIL import Image

from codi_jax.typing import UserError


class DepthEstimator:
    """Monocular depth, relative in each image.

    Args:
        model: directory or Hugging Face id of a depth estimation model, for example
            "depth-anything/Depth-Anything-V2-Small-hf".

    Raises:
        UserError: transformers or torch is missing, or the model cannot be loaded.
    """

    def __init__(self, model: str) -> None:
        try:
            from transformers import pipeline

            self._pipeline: Any = pipeline("depth-estimation", model=model)
        except ImportError as error:
            raise UserError(
                f"depth={model!r} needs transformers and torch; run `pip install -e '.[depth]'`."
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"depth={model!r}: no depth estimation model there "
                f"({' '.join(str(error).split())[:200]})."
            ) from error

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The depth of uint8 [H, W, 3] as uint16 [H, W].

        It is what the model predicts (for most models inverse depth: near is large), scaled so
        that the smallest value of the image becomes 0 and the largest 65535.
        """
        predicted = self._pipeline(Image.fromarray(image))["predicted_depth"]
        values = np.asarray(predicted, np.float32).squeeze()
        low, high = float(values.min()), float(values.max())
        values = (values - low) * np.float32(65535.0 / max(high - low, 1e-9))
        height, width = image.shape[:2]
        return cv2.resize(np.rint(values).astype(np.uint16), (width, height))

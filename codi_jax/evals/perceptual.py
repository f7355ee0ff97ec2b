"""Measures that need networks: LPIPS, DISTS, Inception's features for FID and KID, CLIP score.

Each class loads its weights when it is made, and works on uint8 RGB images [H, W, 3] of any
sizes, in batches over the devices of this process, in float32.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from codi_jax.checkpoint.diffusers_format import load_config, load_params
from codi_jax.checkpoint.hub import resolve
from codi_jax.checkpoint.tokenizer import load_tokenizer
from codi_jax.data.images import resize
from codi_jax.evals.image_metrics import Images
from codi_jax.evals.weights import DISTS_WEIGHTS, HEADS, find_weights
from codi_jax.models import clip, dists, inception, lpips
from codi_jax.models.conditioning import to_signed
from codi_jax.models.text_encoder import CLIPTextEncoder
from codi_jax.sampling.batches import Devices
from codi_jax.typing import Params, UserError

#: Images per batch and process.
BATCH = 8
#: Of CLIP's training images, in [0, 1].
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CLIP_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def load_lpips(backbone: str, weights: Path) -> tuple[lpips.LPIPS, Params]:
    """LPIPS's network and its parameters.

    Args:
        backbone: "alex" or "vgg".
        weights: folder of converted files, see :mod:`codi_jax.evals.weights`.

    Raises:
        UserError: weights that are absent or not the published ones.
    """
    file = find_weights(backbone, weights)
    model = lpips.LPIPS(backbone)
    example = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), example, example)["params"]
    heads = {name: shape for name, shape in shapes.items() if name.startswith("lin")}
    features = {name: shape for name, shape in shapes.items() if name not in heads}
    return model, {
        **load_params(HEADS / f"{backbone}.safetensors", heads),
        **load_params(file, features),
    }


class PairDistance:
    """A network's distance of image pairs, on whole frames that are not resized; 0 is best.

    Args:
        name: what messages call it.
        apply: (parameters, a, b) -> float32 [B], of uint8 [B, H, W, 3].
        params: the network's.
        batch_size: pairs at a time. Of a picture of 768x512 each of VGG's first layers takes
            0.1 GB, so that one pair on each device is enough.
    """

    def __init__(
        self,
        name: str,
        apply: Callable[[Params, Array, Array], Array],
        params: Params,
        batch_size: int = BATCH,
    ):
        self.name, self._devices = name, Devices(batch_size)
        self._params = self._devices.replicate(params)
        self._apply = jax.jit(apply)

    def __call__(self, images: Images, references: Images) -> Float[np.ndarray, " images"]:
        """The distance of each pair, float32; the two images of a pair must have one shape.

        Raises:
            UserError: a side below 32 pixels.
        """

        def distance(
            a: UInt8[Array, "batch height width 3"], b: UInt8[Array, "batch height width 3"]
        ) -> Float[Array, " batch"]:
            if min(a.shape[1:3]) < lpips.SMALLEST:
                raise UserError(
                    f"an image of {a.shape[1]}x{a.shape[2]} is too small for {self.name}: give "
                    f"at least {lpips.SMALLEST}x{lpips.SMALLEST}."
                )
            return self._apply(self._params, a, b)

        return self._devices.map(distance, images, references)


class Lpips(PairDistance):
    """LPIPS v0.1.

    Args:
        backbone: "alex" or "vgg".
        weights: folder of converted files, see :mod:`codi_jax.evals.weights`.

    Raises:
        UserError: weights that are absent or not the published ones.
    """

    def __init__(self, backbone: str, weights: Path):
        model, params = load_lpips(backbone, weights)

        def apply(params: Params, a: Array, b: Array) -> Array:
            return model.apply({"params": params}, to_signed(a), to_signed(b))

        super().__init__("LPIPS", apply, params, 1 if backbone == "vgg" else BATCH)


class Dists(PairDistance):
    """DISTS with the published alpha and beta, which come with the package.

    Args:
        weights: folder of converted files, of which VGG-16's is read.

    Raises:
        UserError: weights that are absent or not the published ones.
    """

    def __init__(self, weights: Path):
        model, file = dists.DISTS(), find_weights("vgg", weights)
        example = jnp.zeros((1, 64, 64, 3))
        shapes = jax.eval_shape(model.init, jax.random.key(0), example, example)["params"]
        own = {name: shapes.pop(name) for name in ("alpha", "beta")}
        params = {**load_params(DISTS_WEIGHTS, own), **load_params(file, shapes)}

        def apply(params: Params, a: Array, b: Array) -> Array:
            pair = (x.astype(jnp.float32) / 255 for x in (a, b))
            return model.apply({"params": params}, *pair)

        super().__init__("DISTS", apply, params, batch_size=1)


class InceptionFeatures:
    """The features of FID and KID, as mseitzer/pytorch-fid computes them.

    Images are resized to 299x299 by bilinear interpolation without antialiasing, whatever their
    proportions, and scaled to [-1, 1].

    Args:
        weights: folder of converted files, see :mod:`codi_jax.evals.weights`.

    Raises:
        UserError: weights that are absent or not the published ones.
    """

    def __init__(self, weights: Path):
        file = find_weights("inception", weights)
        model = inception.InceptionV3()
        example = jnp.zeros((1, inception.SIDE, inception.SIDE, 3))
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)["params"]
        self._devices = Devices(BATCH)
        self._params = self._devices.replicate(load_params(file, shapes))
        # Apart from the network, which is then compiled for one size only.
        self._prepare = jax.jit(inception_input)
        self._apply = jax.jit(lambda params, x: model.apply({"params": params}, x))

    def __call__(self, images: Images) -> Float[np.ndarray, "images 2048"]:
        """The features of each image, float32."""
        return self._devices.map(lambda x: self._apply(self._params, self._prepare(x)), images)


def inception_input(
    images: UInt8[Array, "batch height width 3"],
) -> Float[Array, "batch 299 299 3"]:
    """What Inception reads: float32 in [-1, 1]."""
    shape = (len(images), inception.SIDE, inception.SIDE, 3)
    return jax.image.resize(to_signed(images), shape, "bilinear", antialias=False)


class ClipScore:
    """CLIP score, 100 max(cos, 0) of the embeddings of an image and its text; 100 is best.

    As in Hessel et al. 2021, but without their factor 2.5 and without a prefix to the text.

    Images are resized by antialiased bicubic interpolation until their shorter side fits the
    network, and cropped at the centre.

    Args:
        checkpoint: directory or Hugging Face id of a CLIP, with its tokenizer.

    Raises:
        UserError: nothing there, or another model.
    """

    def __init__(self, checkpoint: str):
        directory = resolve(checkpoint)
        config = clip.CLIPConfig.from_config(load_config(directory))
        self._tokenizer = load_tokenizer(directory)
        self._side, self._devices = config.vision.image_size, Devices(BATCH)
        params = load_params(directory, clip.parameter_shapes(config))
        self._params = self._devices.replicate(params)
        image, text = clip.CLIPImageEncoder(config), CLIPTextEncoder(config.text)

        def cosine(
            params: Params,
            pixels: Float[Array, "batch side side 3"],
            ids: Int[Array, "batch tokens"],
        ) -> Float[Array, " batch"]:
            a = image.apply({"params": params}, pixels)
            b = text.apply({"params": params}, ids).pooled
            norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
            return jnp.sum(a * b, axis=-1) / norms

        self._cosine = jax.jit(cosine)

    def __call__(self, images: Images, texts: Sequence[str]) -> Float[np.ndarray, " images"]:
        """The score of each image and its text, float32.

        Raises:
            UserError: an image without a text.
        """
        empty = [i for i, text in enumerate(texts) if not text]
        if empty or len(texts) != len(images):
            raise UserError(
                f"CLIP score: {len(texts) - len(empty)} texts for {len(images)} images; give each "
                "one its text, for folders in metadata.jsonl beside the images."
            )
        pixels = (clip_input(image, self._side) for image in images)
        ids = list(self._tokenizer.encode(texts))
        values = self._devices.map(lambda *x: self._cosine(self._params, *x), pixels, ids)
        return 100 * np.maximum(values, 0)


def clip_input(
    image: UInt8[np.ndarray, "height width 3"], side: int
) -> Float[np.ndarray, "{side} {side} 3"]:
    """What CLIP reads: the resized, cropped and normalised image, float32."""
    height, width = image.shape[:2]
    shorter = min(height, width)
    # The longer side is rounded down, as in CLIP's own preprocessing.
    image = resize(image, (height * side // shorter, width * side // shorter), "bicubic")
    top, left = (round((n - side) / 2) for n in image.shape[:2])
    crop = image[top : top + side, left : left + side].astype(np.float32) / 255
    return (crop - CLIP_MEAN) / CLIP_DEVIATION

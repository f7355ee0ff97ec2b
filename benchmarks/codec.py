"""What autoencoders keep of pictures, and their time.

    python -m benchmarks.codec runs/autoencoder prior --photos PHOTOS --kodak KODAK

Each model is a run's workdir, a checkpoint, or a folder with the config and weights of an
autoencoder alone. For each: PSNR of photos (256 px from their centre; the first --count by name),
PSNR, GMSD and, where LPIPS's weights are, LPIPS of whole Kodak photos; the worst of the 27 flat
colours {0, 128, 255}^3, in levels of 255, away from the edges (where the padding of convolutions
is seen) and anywhere; and the time of encoding and decoding 768x512 pixels, the median of turns
that the models take one after the other.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.checkpoint.diffusers_format import CONFIG, load_config, load_params
from codi_jax.evals.image_metrics import scores_per_image
from codi_jax.evals.perceptual import Lpips
from codi_jax.models.autoencoders import autoencoder_config, init_autoencoder, make_autoencoder
from codi_jax.models.conditioning import signed_to_uint8, to_signed
from codi_jax.sampling.image_files import all_files
from codi_jax.sampling.load import load_model
from codi_jax.typing import UserError

CROP, FLAT, EDGE = 256, 128, 48
LEVELS = (0, 128, 255)

Codec = Callable[[np.ndarray], np.ndarray]


def load_codec(name: str) -> Codec:
    """uint8 pictures [B, H, W, 3] to their reconstructions."""
    folder = Path(name)
    if (folder / CONFIG).is_file() and "_class_name" in load_config(folder):
        config = autoencoder_config(load_config(folder))
        shapes = jax.eval_shape(lambda key: init_autoencoder(config, key), jax.random.key(0))
        params: Any = load_params(folder, shapes)
    else:
        model = load_model(name)
        config, params = model.vae, model.params["vae"]
    vae = make_autoencoder(config)

    @jax.jit
    def reconstruct(p: Any, images: jax.Array) -> jax.Array:
        z = vae.apply({"params": p}, to_signed(images), method="encode")
        return signed_to_uint8(vae.apply({"params": p}, z, method="decode"))

    return lambda images: np.asarray(reconstruct(params, jnp.asarray(images)))


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """The square of ``size`` pixels in the middle."""
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def flat_error(codec: Codec) -> dict[str, float]:
    """The largest deviation over the flat colours, inside and anywhere."""
    colours = np.array([*itertools.product(LEVELS, repeat=3)], np.uint8)
    pictures = np.tile(colours[:, None, None], (1, FLAT, FLAT, 1))
    error = np.abs(codec(pictures).astype(int) - pictures)
    return {
        "flat": float(error[:, EDGE:-EDGE, EDGE:-EDGE].max()),
        "flat_anywhere": float(error.max()),
    }


def scores(
    codec: Codec, photos: Sequence[np.ndarray], kodak: Sequence[np.ndarray], lpips: Any
) -> dict[str, float]:
    """Everything but the time."""
    result: dict[str, float] = {}
    if photos:
        made = [codec(image[None])[0] for image in photos]
        result["photos_psnr"] = float(scores_per_image(made, photos, ("psnr",))["psnr"].mean())
    if kodak:
        made = [codec(image[None])[0] for image in kodak]
        for name, values in scores_per_image(made, kodak, ("psnr", "ssim", "gmsd")).items():
            result[f"kodak_{name}"] = float(values.mean())
        if lpips is not None:
            result["kodak_lpips"] = float(np.mean(lpips(made, kodak)))
    return result | flat_error(codec)


def seconds(codecs: dict[str, Codec], repeats: int) -> dict[str, float]:
    """Medians for one picture of 768x512, in turns, so that a busy machine slows all alike."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 512, 768, 3), np.uint8)
    taken: dict[str, list[float]] = {name: [] for name in codecs}
    for _ in range(repeats + 1):
        for name, codec in codecs.items():
            begin = time.perf_counter()
            codec(picture)
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codec",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--photos", type=Path, help="folder of photos, 256 px or more")
    parser.add_argument("--kodak", type=Path, help="folder of Kodak's photos")
    parser.add_argument("--count", type=int, default=64, help="photos that are scored")
    parser.add_argument("--repeats", type=int, default=9, help="timed turns")
    parser.add_argument("--weights", type=Path, default=Path("~/.cache/codi_jax").expanduser())
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args(argv)
    try:
        lpips = Lpips("alex", args.weights)
    except UserError as error:
        lpips = None
        print(f"LPIPS is left out: {error}", file=sys.stderr)
    photos = [centre(i, CROP) for i in all_files(args.photos)[: args.count]] if args.photos else []
    kodak = list(all_files(args.kodak)) if args.kodak else []
    codecs = {name: load_codec(name) for name in args.models}
    rows = {}
    for name, codec in codecs.items():
        rows[name] = scores(codec, photos, kodak, lpips)
        print(name, *(f"{key} {value:.4f}" for key, value in rows[name].items()), sep="  ")
    for name, value in seconds(codecs, args.repeats).items():
        rows[name]["seconds"] = value
        print(f"{name}  seconds {value:.4f}")
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""An ``AutoencoderDC`` that starts as the best linear code of pictures' patches.

The principal components of ``f x f`` patches are the code of a given size with the least squared
error (Eckart & Young 1936). The shuffles carry the patch's pixels unchanged to and from the
latents' resolution, the residual blocks are silent (the scale of their norm is 0), and so the
network computes that code and learns what is not linear from there.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.resnet import pixel_unshuffle
from codi_jax.typing import Params, UserError

#: The decoder's last norm divides each pixel's channels by their root mean square. Beside this
#: constant the picture hardly changes that, so that the norm is nearly linear.
CONSTANT = 32.0
#: Latents are divided by their deviation to this power: 0 keeps the principal components, whose
#: deviations differ a hundredfold, and 1 would make the faintest as loud as the first.
POWER = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearCode:
    """A linear code of patches; a patch is flat, with the pixels' order of a C array [f, f, 3].

    Attributes:
        encode: [f * f * 3, C], ``z = (patch - mean) @ encode``.
        decode: [C, f * f * 3], ``patch = z @ decode + mean``.
        mean: [f * f * 3], of the patches.
        power: their mean square.
    """

    encode: np.ndarray
    decode: np.ndarray
    mean: np.ndarray
    power: float


def linear_code(images: np.ndarray, factor: int, channels: int) -> LinearCode:
    """The first principal components of patches.

    Args:
        images: uint8 [N, H, W, 3], sides multiples of ``factor``.
        factor: side of a patch.
        channels: numbers in the code of a patch.

    Raises:
        UserError: more channels than numbers in a patch.
    """
    size = 3 * factor**2
    if channels > size:
        raise UserError(
            f"latent_channels={channels}, but a patch of {factor}x{factor} pixels has {size} "
            "numbers: lower it."
        )
    x = patches(images.astype(np.float32) / 127.5 - 1.0, factor).astype(np.float64)
    mean = x.mean(0)
    variances, basis = np.linalg.eigh(np.cov(x - mean, rowvar=False))
    variances, basis = variances[::-1][:channels], basis[:, ::-1][:, :channels]
    gains = np.maximum(variances, 1e-8) ** (POWER / 2)
    return LinearCode(
        encode=basis / gains, decode=(basis * gains).T, mean=mean, power=float((x**2).mean())
    )


def patches(images: np.ndarray, factor: int) -> np.ndarray:
    """[N, H, W, C] -> [N * H/f * W/f, f * f * C], patches row by row."""
    n, h, w, c = images.shape
    x = images.reshape(n, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, factor * factor * c)


def linear_params(config: AutoencoderDCConfig, params: Params, code: LinearCode) -> Params:
    """``params`` changed so that the network computes ``code``, but for what the last norm adds.

    Args:
        config: the architecture.
        params: drawn at random; silent branches keep them.
        code: the linear code.

    Raises:
        UserError: an architecture whose shuffles cannot carry the picture.
    """
    _check(config)
    encoder, decoder = (jax.tree.map(np.array, params[half]) for half in ("encoder", "decoder"))
    for half, blocks in ((encoder, "down_blocks"), (decoder, "up_blocks")):
        for module in _modules(half, blocks):
            if "norm" in module:
                module["norm"]["scale"][:] = 0.0
            else:  # the shortcut around it carries the picture
                module["conv"]["kernel"][:] = 0.0
    _carry_in(config, encoder, code)
    _carry_out(config, decoder, code)
    return {**params, "encoder": encoder, "decoder": decoder}


def _check(config: AutoencoderDCConfig) -> None:
    """Shuffles alone, each shortcut an identity, and room for the picture on all levels."""
    problem = ""
    if not config.unshuffles or config.upsample_block_type != "pixel_shuffle":
        problem = "pixel_unshuffle and pixel_shuffle, not convolutions that change the size"
    elif config.encoder_out_shortcut or config.decoder_in_shortcut:
        problem = "encoder_out_shortcut and decoder_in_shortcut to be False"
    elif config.decoder_conv_act_fn != "relu":
        problem = f"decoder_conv_act_fn='relu', not {config.decoder_conv_act_fn!r}"
    for half, numbers in (("encoder", 1), ("decoder", 2)):
        first, entry = _first(config, half), config.entry_width(half)
        widths = getattr(config, f"{half}_block_out_channels")[first:]
        # In the decoder each number and its negative, and a constant.
        least = numbers * config.in_channels * 4**first + (numbers - 1)
        if entry < least:
            problem = f"{half}_block_out_channels[{first}] of at least {least}, not {entry}"
        elif half == "decoder" and not config.decoder_layers_per_block[first]:
            problem = f"a block on the decoder's level {first}"
        elif widths != tuple(entry * 4**i for i in range(len(widths))):
            problem = f"{half}_block_out_channels that grow 4 times a level, not {widths}"
    if problem:
        raise UserError(f"config.model.vae_init='linear' needs {problem}; or set it to 'random'.")


def _first(config: AutoencoderDCConfig, half: str) -> int:
    """The finest level that has features: 1 where the first convolution changes the size."""
    return int(getattr(config, f"{half}_layers_per_block")[0] == 0)


def _modules(half: Params, blocks: str) -> list[Params]:
    """All modules of the levels of an encoder or a decoder."""
    levels = [part for name, part in half.items() if blocks in name]
    return [module for level in levels for module in level.values()]


def _centre(matrix: np.ndarray) -> np.ndarray:
    """[in, out] -> kernel [3, 3, in, out] that reads no neighbour."""
    kernel = np.zeros((3, 3, *matrix.shape), np.float32)
    kernel[1, 1] = matrix
    return kernel


def _pixels(config: AutoencoderDCConfig, first: int) -> np.ndarray:
    """Which number of a patch each channel is, [f, f, C] where ``first`` levels are unshuffled."""
    f = config.downsampling
    return _unshuffled(np.arange(f * f * config.in_channels).reshape(f, f, -1), first)


def _unshuffled(values: np.ndarray, times: int) -> np.ndarray:
    """[h, w, C] through ``times`` pixel unshuffles."""
    x = jnp.asarray(values)[None]
    for _ in range(times):
        x = pixel_unshuffle(x)
    return np.asarray(x[0])


def _carry_in(config: AutoencoderDCConfig, encoder: Params, code: LinearCode) -> None:
    """The pixels of each patch to the latents' resolution, and there its code."""
    first, levels = _first(config, "encoder"), len(config.encoder_block_out_channels)
    conv = encoder["conv_in"]["conv"] if first else encoder["conv_in"]
    carried = conv["kernel"].shape[2]
    # The channels that are left read the picture as they were drawn, and nothing reads them yet.
    conv["kernel"][..., :carried] = _centre(np.eye(carried))
    picture = _pixels(config, 0)
    numbers = np.full((*picture.shape[:2], conv["kernel"].shape[-1]), -1)
    numbers[..., :carried] = picture
    order = _unshuffled(numbers, levels - 1).ravel()
    encoder["conv_out"]["kernel"] = _centre(code.encode[order] * (order >= 0)[:, None])
    encoder["conv_out"]["bias"] = (-code.mean @ code.encode).astype(np.float32)


def _carry_out(config: AutoencoderDCConfig, decoder: Params, code: LinearCode) -> None:
    """Write each number of a patch and its negative, beside a large constant for the norm.

    ReLU takes the two apart and the last convolution puts them together again.
    """
    first, width = _first(config, "decoder"), config.entry_width("decoder")
    coarsest = len(config.decoder_block_out_channels) - 1
    picture = _pixels(config, first)
    n = picture.shape[-1]
    numbers = np.zeros((*picture.shape[:2], width), int)
    numbers[..., :n] = numbers[..., n : 2 * n] = picture
    sign = np.repeat([1.0, -1.0, 0.0], [n, n, width - 2 * n])
    order = _unshuffled(numbers, coarsest - first).ravel()
    signs = _unshuffled(np.broadcast_to(sign, numbers.shape), coarsest - first).ravel()
    decoder["conv_in"]["kernel"] = _centre(code.decode[:, order] * signs)
    decoder["conv_in"]["bias"] = (code.mean[order] * signs).astype(np.float32)
    # The constant enters behind all convolutions: in one that read it, each step of the optimiser
    # would move the result by so much more.
    blocks = decoder[f"up_blocks_{first}"]
    last = max((name for name in blocks if "norm" in blocks[name]), key=int)
    blocks[last]["norm"]["bias"][2 * n] = CONSTANT
    rms = np.sqrt((CONSTANT**2 + 2 * n * code.power) / width)
    decoder["norm_out"]["scale"][:] = rms
    decoder["norm_out"]["scale"][2 * n] = rms / CONSTANT
    conv = decoder["conv_out"]["conv"] if first else decoder["conv_out"]
    conv["kernel"][:, :, : 2 * n + 1] = _centre(
        np.concatenate([np.eye(n), -np.eye(n), np.zeros((1, n))])
    )

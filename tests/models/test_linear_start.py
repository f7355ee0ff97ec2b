"""The linear start against the exact linear code."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import ndimage

from codi_jax.models.autoencoder_dc import AutoencoderDC
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.linear_start import linear_code, linear_params, patches
from codi_jax.typing import UserError

#: As ``configs/autoencoder.py`` has it, with fewer blocks.
FACTOR_4 = AutoencoderDCConfig(
    latent_channels=12,
    encoder_block_out_channels=(8, 16, 64),
    decoder_block_out_channels=(16, 32, 128),
    encoder_layers_per_block=(0, 1, 1),
    decoder_layers_per_block=(0, 1, 1),
    encoder_out_shortcut=False,
    decoder_in_shortcut=False,
)
#: With a finest level, and no channel to spare.
FACTOR_2 = dataclasses.replace(
    FACTOR_4,
    latent_channels=5,
    encoder_block_out_channels=(4, 16),
    decoder_block_out_channels=(7, 28),
    encoder_layers_per_block=(1, 1),
    decoder_layers_per_block=(1, 0),
    encoder_qkv_multiscales=None,
    decoder_qkv_multiscales=None,
)


def pictures(n, side=32):
    """Smooth random colours with their own brightness: uint8 [n, side, side, 3]."""
    noise = np.random.default_rng(0).normal(size=(n, side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2, 0)) + 0.02 * noise
    smooth += ndimage.gaussian_filter(noise, (0, 8, 8, 1))
    return np.clip(127.5 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(4 / np.mean((a - b) ** 2))


def exact(code, images, factor):
    """The code's reconstruction, as pictures in [-1, 1]."""
    n, h, w, _ = images.shape
    x = (patches(images / 127.5 - 1, factor) - code.mean) @ code.encode @ code.decode + code.mean
    x = x.reshape(n, h // factor, w // factor, factor, factor, 3)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)


def reconstruct(config, params, images):
    vae = AutoencoderDC(config)
    x = (images / 127.5 - 1).astype(np.float32)
    return jax.jit(lambda p: vae.apply({"params": p}, x, jax.random.key(0)))(params)


def test_the_code_is_the_best_of_its_size():
    images = pictures(20)
    code = linear_code(images, 4, 6)
    x = patches(images / 127.5 - 1, 4)
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    best = (u[:, :6] * s[:6]) @ v[:6] + x.mean(0)
    np.testing.assert_allclose(patches(exact(code, images, 4), 4), best, atol=1e-6)
    z = (x - code.mean) @ code.encode
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-6)
    np.testing.assert_allclose(z.std(0), (s[:6] / np.sqrt(len(x))) ** 0.5, rtol=1e-3)


@pytest.mark.parametrize("config", [FACTOR_4, FACTOR_2], ids=["factor 4", "factor 2"])
def test_the_network_starts_as_the_code(random_params, config):
    images = pictures(8)
    factor = config.downsampling
    code = linear_code(images, factor, config.latent_channels)
    drawn = random_params(AutoencoderDC(config).init, images[:1] / 1.0, jax.random.key(0))
    for half in drawn["params"].values():  # norms start without a bias
        for path, leaf in jax.tree_util.tree_leaves_with_path(half):
            if path[-1].key == "bias":
                leaf[...] = 0
    params = linear_params(config, drawn["params"], code)
    picture, z, _ = reconstruct(config, params, images)
    wanted = (patches(images / 127.5 - 1, factor) - code.mean) @ code.encode
    np.testing.assert_allclose(np.reshape(z, wanted.shape), wanted, atol=1e-4)
    truth = images / 127.5 - 1
    best = psnr(exact(code, images, factor), truth)
    assert 25 < best < 60
    assert best - psnr(picture, truth) < 1.5
    assert psnr(reconstruct(config, drawn["params"], images)[0], truth) < best - 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_out_shortcut": True, "latent_channels": 16}, "shortcut to be False"),
        ({"downsample_block_type": "conv"}, "pixel_unshuffle and pixel_shuffle"),
        ({"encoder_block_out_channels": (8, 8, 32)}, r"encoder.*\[1\] of at least 12, not 8"),
        ({"decoder_block_out_channels": (8, 24, 96)}, r"decoder.*\[1\] of at least 25, not 24"),
        ({"encoder_block_out_channels": (8, 16, 32)}, "grow 4 times a level"),
        ({"decoder_conv_act_fn": "silu"}, "decoder_conv_act_fn='relu', not 'silu'"),
    ],
)
def test_what_cannot_carry_the_picture_is_refused(change, says):
    config = dataclasses.replace(FACTOR_4, **change)
    code = linear_code(pictures(4), 4, 12)
    with pytest.raises(UserError, match=f"vae_init='linear' needs .*{says}"):
        linear_params(config, {}, code)


def test_a_code_larger_than_a_patch_is_refused():
    with pytest.raises(UserError, match="latent_channels=13.*2x2 pixels has 12"):
        linear_code(pictures(1), 2, 13)

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.autoencoder_dc import AutoencoderDC, pixel_shuffle
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.autoencoders import autoencoder_config, init_autoencoder, make_autoencoder
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.models.resnet import pixel_unshuffle
from codi_jax.typing import UserError

CONFIG = AutoencoderDCConfig(
    latent_channels=4,
    encoder_block_out_channels=(8, 16),
    decoder_block_out_channels=(8, 32),
    encoder_layers_per_block=(0, 1),
    decoder_layers_per_block=(1, 1),
    scaling_factor=0.25,
)
#: Pixels beyond its own that the decoder's result depends on (the encoder's on fewer): every
#: convolution reads one neighbour at its resolution. At half the size they are conv_in, two of the
#: block, and the upsampler's; at full size two of the block and conv_out: 2 * 4 + 3 pixels, in
#: whole latents.
HALO = 12


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (1, 56, 60, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(random_params, images):
    return random_params(AutoencoderDC(CONFIG).init, images, jax.random.key(0))


def apply(variables, method, *args, dtype=jnp.float32):
    return AutoencoderDC(CONFIG, dtype).apply(variables, *args, method=method)


def test_shuffles_are_inverse_and_ordered_as_pytorchs():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    y = pixel_unshuffle(jnp.asarray(x))
    assert y.shape == (2, 2, 3, 12)
    assert y[1, 1, 2, 4 * 2 + 2 * 1 + 0] == x[1, 2 * 1 + 1, 2 * 2 + 0, 2]
    np.testing.assert_array_equal(pixel_shuffle(y), x)


def test_latents_are_the_scaled_code_and_decode_undoes_it(variables, images):
    code = apply(variables, "encode_unscaled", images)
    latents = apply(variables, "encode", images)
    np.testing.assert_allclose(latents, 0.25 * code, rtol=1e-6)
    # There is nothing to draw.
    np.testing.assert_array_equal(latents, apply(variables, "encode", images, jax.random.key(1)))
    decoded = apply(variables, "decode", latents)
    assert decoded.shape == images.shape
    np.testing.assert_allclose(decoded, apply(variables, "decode_unscaled", code), atol=1e-5)
    reconstruction, same, logvar = apply(variables, None, images, jax.random.key(0))
    assert logvar is None
    np.testing.assert_allclose(reconstruction, decoded, atol=1e-5)
    np.testing.assert_allclose(same, code, atol=1e-6)


def test_tiles_equal_the_whole(variables, images):
    """No statistics of the whole picture: 16 px tiles, with the receptive field around them."""
    whole = apply(variables, "encode", images)
    decoded = apply(variables, "decode", whole)
    for top, left in ((16, 16), (16, 24), (24, 24)):
        rows = slice(top - HALO, top + 16 + HALO)
        columns = slice(left - HALO, left + 16 + HALO)
        tile, h = images[:, rows, columns], HALO // 2
        encoded = apply(variables, "encode", tile)
        wanted = whole[:, top // 2 : top // 2 + 8, left // 2 : left // 2 + 8]
        np.testing.assert_allclose(encoded[:, h:-h, h:-h], wanted, atol=1e-5)
        z = whole[:, rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2]
        picture = apply(variables, "decode", z)[:, HALO:-HALO, HALO:-HALO]
        wanted = decoded[:, top : top + 16, left : left + 16]
        np.testing.assert_allclose(picture, wanted, atol=1e-5)


def test_bf16_keeps_float32_at_its_borders(variables, images):
    latents = apply(variables, "encode", images, dtype=jnp.bfloat16)
    decoded = apply(variables, "decode", latents, dtype=jnp.bfloat16)
    assert latents.dtype == decoded.dtype == jnp.float32
    exact = apply(variables, "encode", images)
    assert 0 < np.abs(latents - exact).max() < 0.05 * np.abs(exact).max()


def test_sizes_that_do_not_divide_are_refused(variables):
    with pytest.raises(UserError, match="7x8 are no multiple of 2"):
        apply(variables, "encode", jnp.zeros((1, 7, 8, 3)))


def test_the_class_is_chosen_by_its_name():
    assert autoencoder_config({"_class_name": "AutoencoderDC"} | CONFIG.to_config()) == CONFIG
    assert isinstance(make_autoencoder(CONFIG), AutoencoderDC)
    old = AutoencoderConfig(block_out_channels=(4, 8), norm_num_groups=2)
    assert autoencoder_config(old.to_config()) == old  # workdirs from before there were two
    assert isinstance(make_autoencoder(old), AutoencoderKL)
    with pytest.raises(UserError, match="'VQModel'.*AutoencoderKL, AutoencoderDC"):
        autoencoder_config({"_class_name": "VQModel"})


def test_a_new_kl_posterior_is_narrow():
    config = AutoencoderConfig(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2)
    params = init_autoencoder(config, jax.random.key(0))
    np.testing.assert_array_equal(params["quant_conv"]["bias"][4:], -8.0)


def test_unit_sized():
    assert CONFIG.unit_sized(np.float32(3), np.float32(4)).scaling_factor == pytest.approx(0.2)
    old = AutoencoderConfig().unit_sized(np.float32(3), np.float32(4))
    assert (old.scaling_factor, old.shift_factor) == (0.25, 3.0)


def test_the_config_survives_its_json():
    full = AutoencoderDCConfig(encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)))
    for config in (CONFIG, full):
        read = json.loads(json.dumps(config.to_config()))
        assert AutoencoderDCConfig.from_config(read) == config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder_block_types": ["ResBlock", "EfficientViTBlock"]}, "'EfficientViTBlock' is not"),
        ({"decoder_block_types": "EfficientViTBlock"}, "choose from .*ResBlock"),
        ({"decoder_norm_types": "batch_norm"}, "'batch_norm' is not implemented"),
        ({"decoder_act_fns": ["silu"]}, "1 decoder_act_fns for 2 levels"),
        ({"decoder_conv_act_fn": "gelu"}, "'gelu' is not implemented"),
        ({"downsample_block_type": "pool"}, "'pool' is not implemented"),
        ({"decoder_block_out_channels": [8, 32, 128]}, "3 decoder_block_out_channels for 2 levels"),
        ({"encoder_layers_per_block": [1]}, "1 encoder_layers_per_block for 2 levels"),
        ({"encoder_layers_per_block": [1, 1], "encoder_block_out_channels": [6, 16]}, "4 [*] 6"),
        ({"encoder_block_out_channels": [8, 18]}, "18 is no multiple of 4"),
        ({"latent_channels": 5}, "latent_channels=5 does not divide the 16 channels"),
        ({"bogus": 1}, "unknown key 'bogus'"),
    ],
)
def test_what_is_not_implemented_is_refused(change, says):
    with pytest.raises(UserError, match=says):
        AutoencoderDCConfig.from_config(CONFIG.to_config() | change)


def test_an_empty_level_between_others_is_refused():
    with pytest.raises(UserError, match=r"encoder_layers_per_block=\(2, 0, 2\)"):
        AutoencoderDCConfig(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            encoder_layers_per_block=(2, 0, 2),
            decoder_layers_per_block=(2, 2, 2),
        )


def test_nothing_beyond_its_reach_changes_anything(random_params):
    """So tiles that overlap by it are exact."""
    config = AutoencoderDCConfig(
        latent_channels=4,
        encoder_block_out_channels=(4, 8),
        decoder_block_out_channels=(4, 8),
        encoder_layers_per_block=(0, 2),
        decoder_layers_per_block=(0, 2),
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
    )
    vae, side, middle = AutoencoderDC(config), 40, 20
    params = random_params(vae.init, jnp.zeros((1, 8, 8, 3)), jax.random.key(0))
    z = jnp.zeros((1, side, side, 4))
    x = jnp.zeros((1, 2 * side, 2 * side, 3))
    changed = x.at[:, 2 * middle : 2 * middle + 2].add(1.0)
    for method, before, after, factor in (
        ("encode", x, changed, 1),
        ("decode", z, z.at[:, middle].add(1.0), 2),
    ):
        made = [vae.apply(params, given, method=method) for given in (before, after)]
        rows = np.flatnonzero(np.abs(made[1] - made[0]).max((0, 2, 3)) > 0) // factor
        far = np.abs(rows - middle).max()
        assert config.reach - 1 <= far <= config.reach, method

"""AutoencoderDC against PyTorch diffusers."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.checkpoint.diffusers_format import load_config  # noqa: E402
from codi_jax.checkpoint.directory import read_directory, save_directory  # noqa: E402
from codi_jax.diffusion.guidance import GuidedCondition  # noqa: E402
from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig  # noqa: E402
from codi_jax.models.autoencoders import (  # noqa: E402
    autoencoder_config,
    init_autoencoder,
    make_autoencoder,
)
from codi_jax.run.plan import plan  # noqa: E402
from codi_jax.sample import Sampler  # noqa: E402
from configs import sr  # noqa: E402

#: A trained one, made outside this repository.
TRAINED = Path(os.environ.get("CODI_JAX_CODEC", "../shared/weights/codec"))
TOLERANCE = 1e-5
IMAGES = np.tanh(np.random.default_rng(1).normal(size=(2, 16, 24, 3))).astype(np.float32)
SHUFFLES = {
    "latent_channels": 6,
    "encoder_block_out_channels": (8, 16, 64),
    "decoder_block_out_channels": (8, 32, 128),
    "encoder_layers_per_block": (0, 1, 2),
    "decoder_layers_per_block": (0, 1, 2),
    "encoder_qkv_multiscales": ((), (), ()),
    "decoder_qkv_multiscales": ((), (), ()),
    "encoder_out_shortcut": False,
    "decoder_in_shortcut": False,
    "scaling_factor": 0.5,
}
VARIANTS = {
    "no finest level": SHUFFLES,
    "shortcuts that average and repeat": SHUFFLES
    | {
        "latent_channels": 4,
        "encoder_block_out_channels": (8, 8, 16),
        "decoder_block_out_channels": (8, 16, 16),
        "encoder_layers_per_block": (1, 1, 2),
        "decoder_layers_per_block": (1, 2, 1),
        "encoder_out_shortcut": True,
        "decoder_in_shortcut": True,
    },
    "strides and interpolation": SHUFFLES
    | {
        "downsample_block_type": "conv",
        "upsample_block_type": "interpolate",
        "decoder_act_fns": ("relu", "silu", "relu"),
        "decoder_conv_act_fn": "silu",
        "decoder_norm_types": ("rms_norm",) * 3,
    },
    "two levels, the last one empty": {
        "latent_channels": 4,
        "encoder_block_out_channels": (4, 16),
        "decoder_block_out_channels": (8, 16),
        "encoder_layers_per_block": (1, 0),
        "decoder_layers_per_block": (1, 0),
        "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
        "decoder_in_shortcut": True,
    },
}

TINY = {
    "latent_channels": 4,
    "encoder_block_out_channels": (8, 16),
    "decoder_block_out_channels": (8, 32),
    "encoder_layers_per_block": (0, 1),
    "decoder_layers_per_block": (0, 1),
    "scaling_factor": 0.7,
}


def errors(parity, model, config, params):
    """Of the code, and of what both decode from the same latents."""
    vae = make_autoencoder(config)

    def apply(method):
        return lambda p, x: vae.apply({"params": p}, x, method=method)

    with torch.no_grad():
        code = model.encode(*parity.torch(IMAGES)).latent
        decoded = model.decode(code).sample
    z = np.ascontiguousarray(code.numpy().transpose(0, 2, 3, 1)) * config.scaling_factor
    ours = parity.ours(apply("encode"), params, IMAGES) / config.scaling_factor
    assert parity.error(ours, code) < TOLERANCE
    assert parity.error(parity.ours(apply("decode"), params, z), decoded) < TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
def test_autoencoder(parity, variant):
    torch.manual_seed(0)
    model = diffusers.AutoencoderDC(**VARIANTS[variant])
    directory = parity.save(model)
    config = autoencoder_config(load_config(directory))
    params = parity.params(lambda key: init_autoencoder(config, key), directory)
    errors(parity, model, config, params)
    parity.check_saved_again(model, config, params)


@pytest.mark.skipif(not TRAINED.is_dir(), reason=f"no trained AutoencoderDC in {TRAINED}")
def test_a_trained_one(parity):
    model = diffusers.AutoencoderDC.from_pretrained(TRAINED).eval()
    config = autoencoder_config(load_config(TRAINED))
    assert isinstance(config, AutoencoderDCConfig)
    params = parity.params(lambda key: init_autoencoder(config, key), TRAINED)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 936_040
    errors(parity, model, config, params)
    parity.check_saved_again(model, config, params)


def test_an_exported_model_runs_in_pytorch(tmp_path):
    """With a code where other autoencoders have a distribution, and without a shift."""
    config = sr.get_config("tiny")
    config.model.vae = ConfigDict({"_class_name": "AutoencoderDC", **TINY})
    unet = config.model.unet  # without text, PyTorch has no attention
    unet.down_block_types, unet.up_block_types = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
    config.model.unet = ConfigDict({**unet, "mid_block_type": "UNetMidBlock2D"})
    model = plan(config).model
    params = jax.jit(model.init)(jax.random.key(0))
    params["adapter"]["mu"] = params["adapter"]["mu"] + 0.5
    model = dataclasses.replace(model, params=params)
    save_directory(tmp_path, model)
    assert read_directory(tmp_path).vae == model.vae
    lr = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    z = np.random.default_rng(1).normal(size=(1, 32, 32, 4)).astype(np.float32)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    latents = torch.from_numpy(z.transpose(0, 3, 1, 2).copy())
    options = {"num_inference_steps": 2, "latents": latents, "output_type": "pt"}
    theirs = pipe(Image.fromarray(lr), **options).images[0].permute(1, 2, 0).numpy()
    pictures = Sampler(model).pictures
    cond = pictures.image_condition(params["vae"], {"lr": lr[None]})
    found = pictures.sample_latents(params, z, GuidedCondition(cond=cond), steps=2)
    ours = pictures.vae.apply({"params": params["vae"]}, found, method="decode")
    assert theirs.std() > 0.05
    np.testing.assert_allclose(np.clip(ours[0], -1, 1), theirs, atol=1e-3)

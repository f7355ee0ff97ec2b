"""The autoencoder against PyTorch diffusers."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from safetensors.numpy import load_file, save_file  # noqa: E402

from codi_jax.models.autoencoder import AutoencoderKL  # noqa: E402
from codi_jax.models.configs import AutoencoderConfig  # noqa: E402

SD = {
    "block_out_channels": (8, 12),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
VARIANTS = {
    "SD": SD,
    "SDXL": SD | {"scaling_factor": 0.13025, "force_upcast": False, "layers_per_block": 2},
    "no attention": SD | {"mid_block_add_attention": False, "use_quant_conv": False},
}
IMAGES = np.tanh(np.random.default_rng(1).normal(size=(2, 16, 12, 3))).astype(np.float32)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def run(vae):
    """Parameters, images -> mean, log-variance, and the image decoded from the mode."""

    def apply(params, images):
        variables = {"params": params}
        mean, logvar = vae.apply(variables, images, method="moments")
        latents = vae.apply(variables, images, method="encode")
        return mean, logvar, vae.apply(variables, latents, method="decode")

    return apply


@pytest.mark.parametrize("variant", VARIANTS)
def test_autoencoder(parity, variant):
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**VARIANTS[variant])
    directory = parity.save(model)
    config = parity.config(AutoencoderConfig, directory)
    vae = AutoencoderKL(config)
    params = parity.params(lambda key: vae.init(key, IMAGES, key)["params"], directory)
    with torch.no_grad():
        posterior = model.encode(*parity.torch(IMAGES)).latent_dist
        decoded = model.decode(posterior.mode()).sample
    theirs = (posterior.mean, posterior.logvar, decoded)
    for a, b in zip(parity.ours(run(vae), params, IMAGES), theirs, strict=True):
        assert parity.error(a, b) < 2e-5
    parity.check_saved_again(model, config, params)


def test_attention_under_its_old_names(parity):
    """Stable Diffusion 1.x's files name the mid blocks' attention as diffusers did at first."""
    directory = parity.save(diffusers.AutoencoderKL(**SD))
    vae = AutoencoderKL(parity.config(AutoencoderConfig, directory))

    def init(key):
        return vae.init(key, IMAGES, key)["params"]

    new, file = parity.params(init, directory), directory / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for name in list(tensors):
        for now, once in OLD_NAMES.items():
            if f".{now}." in name:
                tensors[name.replace(now, once)] = tensors.pop(name)
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, file)
    jax.tree.map(np.testing.assert_array_equal, parity.params(init, directory), new)

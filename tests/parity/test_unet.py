"""The U-Net against PyTorch diffusers, for every architecture of the Stable Diffusion family."""

import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.models.adapted_unet import AdaptedUNet  # noqa: E402
from codi_jax.models.configs import UNetConfig  # noqa: E402

from .architectures import SD15, SD21, SDXL, inputs  # noqa: E402

VARIANTS = {
    "SD 1.5": SD15,
    "SD 2.1": SD21 | {"upcast_attention": True},
    "inpainting": SD15 | {"in_channels": 9},
    "InstructPix2Pix": SD15 | {"in_channels": 8},
    "SDXL": SDXL,
    "distilled guidance": SD15 | {"time_cond_proj_dim": 32},
    # The embedded prior's kind. Without text PyTorch takes no transformers at all.
    "convolutions only": SD21
    | {
        "down_block_types": ("DownBlock2D",) * 2,
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ("UpBlock2D",) * 2,
        "cross_attention_dim": (None, None),
    },
}
FULL = {
    "SD 1.5": {"cross_attention_dim": 768},
    "SD 2.1": {
        "attention_head_dim": (5, 10, 20, 20),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "upcast_attention": True,
    },
}


def theirs(parity, model, z, t, cond):
    """PyTorch's output on our inputs."""
    tensors = dict(zip(cond, parity.torch(*cond.values()), strict=True))
    text, scale = tensors.pop("text", None), tensors.pop("guidance_scale", None)
    z, t = parity.torch(z, t)
    if scale is not None:  # as LatentConsistencyModelPipeline calls it
        embed = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        scale = embed(None, scale - 1, model.config.time_cond_proj_dim)
    with torch.no_grad():
        return model(
            z, t, encoder_hidden_states=text, timestep_cond=scale, added_cond_kwargs=tensors
        ).sample


def load_both(parity, kwargs):
    """(PyTorch's U-Net, our network, our parameters): PyTorch makes and saves it, we load it."""
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**kwargs)
    directory = parity.save(model)
    network = AdaptedUNet(unet=parity.config(UNetConfig, directory))
    return model, network, {"unet": parity.params(network.init, directory, "unet")}


def relative_error(parity, model, network, params, large=False):
    example = inputs(network.unet)
    ours = parity.ours(network.predict, params, *example, large=large)
    return parity.error(ours, theirs(parity, model, *example))


@pytest.mark.parametrize("variant", VARIANTS)
def test_unet(parity, variant):
    model, network, params = load_both(parity, VARIANTS[variant])
    assert relative_error(parity, model, network, params) < 2e-5
    parity.check_saved_again(model, network.unet, params["unet"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", FULL)
def test_full_size(parity, variant, capsys):
    loaded = load_both(parity, FULL[variant])
    parity.forget()
    error = relative_error(parity, *loaded, large=True)
    with capsys.disabled():
        print(f"\n{variant}, full size: relative error {error:.2g}")
    assert error < 2e-5

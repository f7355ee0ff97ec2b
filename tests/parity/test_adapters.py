"""ControlNets and T2I-Adapters against PyTorch diffusers, inside the U-Net."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.models.adapted_unet import AdaptedUNet  # noqa: E402
from codi_jax.models.adapters.controlnet import ControlNet, ControlNetConfig  # noqa: E402
from codi_jax.models.adapters.t2i import T2I, T2IAdapterConfig  # noqa: E402
from codi_jax.models.configs import UNetConfig  # noqa: E402

from .architectures import SD15, SDXL, inputs, normal  # noqa: E402

TOLERANCE = 2e-5


class Case:
    """A PyTorch U-Net and our copy of it, with inputs and a condition image in [-1, 1]."""

    def __init__(self, parity, kwargs):
        torch.manual_seed(0)
        self.parity = parity
        self.unet = diffusers.UNet2DConditionModel(**kwargs)
        directory = parity.save(self.unet)
        self.config = parity.config(UNetConfig, directory)
        plain = AdaptedUNet(unet=self.config)
        self.params = parity.params(plain.init, directory, "unet")
        self.z, self.t, cond = inputs(self.config)
        _, h, w, _ = self.z.shape
        image = np.tanh(normal(2, 4 * h, 4 * w, 3, seed=5))
        self.cond = {**cond, "image": image}
        self.tensors = dict(zip(self.cond, parity.torch(*self.cond.values()), strict=True))
        self.tensors["image"] = (self.tensors["image"] + 1) / 2  # as diffusers has it

    def ours(self, network, adapter):
        params = {"unet": self.params, "adapter": adapter}
        return self.parity.ours(network.predict, params, self.z, self.t, self.cond)

    def theirs(self, model, **kwargs):
        """The output of a PyTorch model that reads z_t, t and the prompt."""
        added = {k: v for k, v in self.tensors.items() if k in ("text_embeds", "time_ids")}
        z, t = self.parity.torch(self.z, self.t)
        with torch.no_grad():
            return model(
                z,
                t,
                encoder_hidden_states=self.tensors["text"],
                added_cond_kwargs=added,
                return_dict=False,
                **kwargs,
            )

    def controlled(self, controlnet):
        down, mid = self.theirs(controlnet, controlnet_cond=self.tensors["image"])
        return self.theirs(
            self.unet, down_block_additional_residuals=down, mid_block_additional_residual=mid
        )[0]


@pytest.fixture(scope="module")
def case_of(parity):
    """``case_of("SDXL")``, each made once."""
    return functools.cache(lambda name: Case(parity, UNETS[name]))


UNETS = {
    "SD 1.5": SD15,
    "SD 1.5, equal widths": SD15 | {"block_out_channels": (16, 16)},
    "SDXL": SDXL,
    # SDXL's order of levels, on which the sizes of the features depend.
    "three levels": SD15
    | {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
CONTROLNETS = {
    "of SD 1.5": ("SD 1.5", {}),
    "of SDXL": ("SDXL", {}),
    "bgr, pooled, without attention": (
        "SD 1.5",
        {
            "controlnet_conditioning_channel_order": "bgr",
            "global_pool_conditions": True,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "mid_block_type": "UNetMidBlock2D",
        },
    ),
}


@pytest.mark.parametrize("name", CONTROLNETS)
def test_controlnet(parity, case_of, name):
    unet, change = CONTROLNETS[name]
    case = case_of(unet)
    own = {k: v for k, v in UNETS[unet].items() if k != "up_block_types"} | change
    controlnet = diffusers.ControlNetModel(**own, conditioning_embedding_out_channels=(4, 6, 8))
    directory = parity.save(controlnet)
    config = parity.config(ControlNetConfig, directory)
    network = AdaptedUNet(unet=case.config, adapter=ControlNet(config=config))
    adapter = parity.params(network.init, directory, "adapter")
    assert parity.error(case.ours(network, adapter), case.controlled(controlnet)) < TOLERANCE
    parity.check_saved_again(controlnet, network.adapter.config, adapter)


T2I_ADAPTERS = {
    "full_adapter": ("SD 1.5", {"channels": [16, 24], "downscale_factor": 4}),
    "light_adapter": ("SD 1.5, equal widths", {"channels": [16], "downscale_factor": 4}),
    # The first level adds its feature after its downsampler; the last goes to the mid block.
    "full_adapter_xl": ("three levels", {"channels": [8, 16, 24, 24], "downscale_factor": 8}),
}


@pytest.mark.parametrize("kind", T2I_ADAPTERS)
def test_t2i_adapter(parity, case_of, kind):
    unet, own = T2I_ADAPTERS[kind]
    case = case_of(unet)
    model = diffusers.T2IAdapter(**own, num_res_blocks=2, adapter_type=kind)
    directory = parity.save(model)
    config = parity.config(T2IAdapterConfig, directory)
    assert config.downsampling == model.total_downscale_factor
    network = AdaptedUNet(unet=case.config, adapter=T2I(config=config))
    adapter = parity.params(network.init, directory, "adapter")
    features = model(case.tensors["image"])
    expected = case.theirs(case.unet, down_intrablock_additional_residuals=list(features))[0]
    assert parity.error(case.ours(network, adapter), expected) < TOLERANCE
    parity.check_saved_again(model, config, adapter)

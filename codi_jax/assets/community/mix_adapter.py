"""The condition encoder of a CoDi model, for PyTorch diffusers (equation 10 of the paper).

This file travels with the exported weights: ``DiffusionPipeline.from_pretrained(directory,
trust_remote_code=True)`` finds it in ``adapter/``. codi_jax itself never imports it.
"""

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config


class CoDiMixAdapter(ModelMixin, ConfigMixin):
    """A copy of a U-Net's encoder that reads the condition's latents, and the scalar ``mu``.

    The arguments are those of ``UNet2DConditionModel``.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type: str = "UNetMidBlock2DCrossAttn",
        up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_head_dim: int | tuple[int, ...] = 8,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        cross_attention_dim: int | None = 768,
        use_linear_projection: bool = False,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        upcast_attention: bool | None = False,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int | None = None,
        projection_class_embeddings_input_dim: int | None = None,
    ):
        super().__init__()
        unet = UNet2DConditionModel(**dict(self.config))
        self.conv_in = unet.conv_in
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.down_blocks, self.mid_block = unet.down_blocks, unet.mid_block
        self.mu = torch.nn.Parameter(torch.zeros(()))

    def forward(
        self, latents: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The features h_eta(c) (skips, then mid) of the condition's latents [B, C, h, w]."""
        t = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)
        return encode(self, latents, t, encoder_hidden_states)[0]

    def predict(
        self,
        unet: UNet2DConditionModel,
        z: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor | None,
        features: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        """The adapted U-Net's output; equation 10, h' = (1 - mu) h_theta(z_t) + mu h_eta(c)."""
        own, temb = encode(unet, z, t, text)
        mixed = [(1 - self.mu) * h + self.mu * c for h, c in zip(own, features, strict=True)]
        return decode(unet, mixed, temb, text)


def encode(
    model: torch.nn.Module, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor | None
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The encoder's half of a U-Net: (skips and mid, time embedding)."""
    temb = model.time_embedding(model.time_proj(t).to(latents.dtype))
    x = model.conv_in(latents)
    skips = (x,)
    for block in model.down_blocks:
        x, new = block(x, temb, **_text(block, text))
        skips += new
    return (*skips, model.mid_block(x, temb, **_text(model.mid_block, text))), temb


def decode(
    unet: UNet2DConditionModel,
    features: list[torch.Tensor],
    temb: torch.Tensor,
    text: torch.Tensor | None,
) -> torch.Tensor:
    """The decoder's half of a U-Net."""
    *skips, x = features
    for block in unet.up_blocks:
        n = len(block.resnets)
        x = block(x, tuple(skips[-n:]), temb, **_text(block, text))
        skips = skips[:-n]
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def _text(block: torch.nn.Module, text: torch.Tensor | None) -> dict[str, torch.Tensor]:
    attends = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": text} if attends and text is not None else {}

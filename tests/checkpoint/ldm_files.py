"""Names and shapes of Stable Diffusion's original layout, written down from its modules.

The classes are ``UNetModel``, ``Encoder``, ``Decoder`` of CompVis' latent-diffusion, ``CLIP`` of
OpenCLIP and ``CLIPTextModel`` of transformers 4. Every function returns ``{name: shape}``.
"""

import dataclasses
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.models.adapted_unet import AdaptedUNet
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.models.text_encoder import CLIPTextEncoder, TextEncoderConfig

#: The prediction type to give for each family; None is the default.
TYPE = {"sd1": None, "sd2": "v_prediction", "sdxl": None}


def _linear(name, n_in, n_out):
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _conv(name, n_in, n_out, size):
    return {f"{name}.weight": (n_out, n_in, size, size), f"{name}.bias": (n_out,)}


def _norm(name, n):
    return {f"{name}.weight": (n,), f"{name}.bias": (n,)}


def _resnet(name, n_in, n_out, time):
    return {
        **_norm(f"{name}.in_layers.0", n_in),
        **_conv(f"{name}.in_layers.2", n_in, n_out, 3),
        **_linear(f"{name}.emb_layers.1", time, n_out),
        **_norm(f"{name}.out_layers.0", n_out),
        **_conv(f"{name}.out_layers.3", n_out, n_out, 3),
        **(_conv(f"{name}.skip_connection", n_in, n_out, 1) if n_in != n_out else {}),
    }


def _transformer(name, n, depth, context, linear):
    result = _norm(f"{name}.norm", n)
    for end in ("proj_in", "proj_out"):
        result |= _linear(f"{name}.{end}", n, n) if linear else _conv(f"{name}.{end}", n, n, 1)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, n_key in (("attn1", n), ("attn2", context)):
            result[f"{block}.{attention}.to_q.weight"] = (n, n)
            result[f"{block}.{attention}.to_k.weight"] = (n, n_key)
            result[f"{block}.{attention}.to_v.weight"] = (n, n_key)
            result |= _linear(f"{block}.{attention}.to_out.0", n, n)
        result |= _linear(f"{block}.ff.net.0.proj", n, 8 * n)
        result |= _linear(f"{block}.ff.net.2", 4 * n, n)
        for j in (1, 2, 3):
            result |= _norm(f"{block}.norm{j}", n)
    return result


def unet(channels, depths, context, *, linear, in_channels=4, layers=2, adm=None):
    """``depths``: transformer blocks at each level, 0 for none; the middle has the largest."""
    time = 4 * channels[0]
    result = _linear("time_embed.0", channels[0], time) | _linear("time_embed.2", time, time)
    if adm:
        result |= _linear("label_emb.0.0", adm, time) | _linear("label_emb.0.2", time, time)
    result |= _conv("input_blocks.0.0", in_channels, channels[0], 3)
    skips, n, block = [channels[0]], channels[0], 1
    for level, width in enumerate(channels):
        for _ in range(layers):
            result |= _resnet(f"input_blocks.{block}.0", n, width, time)
            if depths[level]:
                name = f"input_blocks.{block}.1"
                result |= _transformer(name, width, depths[level], context, linear)
            n, block = width, block + 1
            skips.append(n)
        if level < len(channels) - 1:
            result |= _conv(f"input_blocks.{block}.0.op", n, n, 3)
            skips.append(n)
            block += 1
    result |= _resnet("middle_block.0", n, n, time)
    result |= _transformer("middle_block.1", n, max(depths), context, linear)
    result |= _resnet("middle_block.2", n, n, time)
    block = 0
    for level, width in reversed(list(enumerate(channels))):
        for i in range(layers + 1):
            result |= _resnet(f"output_blocks.{block}.0", n + skips.pop(), width, time)
            n, slot = width, 1
            if depths[level]:
                name = f"output_blocks.{block}.1"
                result |= _transformer(name, width, depths[level], context, linear)
                slot = 2
            if level and i == layers:
                result |= _conv(f"output_blocks.{block}.{slot}.conv", n, n, 3)
            block += 1
    return result | _norm("out.0", n) | _conv("out.2", n, 4, 3)


def _vae_resnet(name, n_in, n_out):
    return {
        **_norm(f"{name}.norm1", n_in),
        **_conv(f"{name}.conv1", n_in, n_out, 3),
        **_norm(f"{name}.norm2", n_out),
        **_conv(f"{name}.conv2", n_out, n_out, 3),
        **(_conv(f"{name}.nin_shortcut", n_in, n_out, 1) if n_in != n_out else {}),
    }


def _vae_middle(name, n):
    result = _vae_resnet(f"{name}.block_1", n, n) | _norm(f"{name}.attn_1.norm", n)
    for end in ("q", "k", "v", "proj_out"):
        result |= _conv(f"{name}.attn_1.{end}", n, n, 1)
    return result | _vae_resnet(f"{name}.block_2", n, n)


def vae(channels, layers=2, latent=4):
    result = _conv("encoder.conv_in", 3, channels[0], 3)
    n = channels[0]
    for level, width in enumerate(channels):
        for i in range(layers):
            result |= _vae_resnet(f"encoder.down.{level}.block.{i}", n, width)
            n = width
        if level < len(channels) - 1:
            result |= _conv(f"encoder.down.{level}.downsample.conv", n, n, 3)
    result |= _vae_middle("encoder.mid", n) | _norm("encoder.norm_out", n)
    result |= _conv("encoder.conv_out", n, 2 * latent, 3)
    result |= _conv("quant_conv", 2 * latent, 2 * latent, 1)
    result |= _conv("post_quant_conv", latent, latent, 1)
    result |= _conv("decoder.conv_in", latent, n, 3) | _vae_middle("decoder.mid", n)
    for level, width in reversed(list(enumerate(channels))):
        for i in range(layers + 1):
            result |= _vae_resnet(f"decoder.up.{level}.block.{i}", n, width)
            n = width
        if level:
            result |= _conv(f"decoder.up.{level}.upsample.conv", n, n, 3)
    return result | _norm("decoder.norm_out", n) | _conv("decoder.conv_out", n, 3, 3)


@dataclasses.dataclass(frozen=True)
class Text:
    width: int
    layers: int
    vocabulary: int = 49408
    length: int = 77
    projection: int = 0  # OpenCLIP's


def clip(text):
    n = text.width
    result = {
        "text_model.embeddings.token_embedding.weight": (text.vocabulary, n),
        "text_model.embeddings.position_embedding.weight": (text.length, n),
    }
    for i in range(text.layers):
        layer = f"text_model.encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            result |= _linear(f"{layer}.self_attn.{projection}", n, n)
        result |= _linear(f"{layer}.mlp.fc1", n, 4 * n) | _linear(f"{layer}.mlp.fc2", 4 * n, n)
        result |= _norm(f"{layer}.layer_norm1", n) | _norm(f"{layer}.layer_norm2", n)
    return result | _norm("text_model.final_layer_norm", n)


def open_clip(text):
    n = text.width
    result = {
        "positional_embedding": (text.length, n),
        "token_embedding.weight": (text.vocabulary, n),
        "text_projection": (n, text.projection),
        "logit_scale": (),
        **_norm("ln_final", n),
    }
    for i in range(text.layers):
        layer = f"transformer.resblocks.{i}"
        result |= {f"{layer}.attn.in_proj_weight": (3 * n, n)}
        result |= {f"{layer}.attn.in_proj_bias": (3 * n,)}
        result |= _linear(f"{layer}.attn.out_proj", n, n)
        result |= _linear(f"{layer}.mlp.c_fc", n, 4 * n) | _linear(f"{layer}.mlp.c_proj", 4 * n, n)
        result |= _norm(f"{layer}.ln_1", n) | _norm(f"{layer}.ln_2", n)
    return result


def _under(prefix, shapes):
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


#: What the training of the original code leaves in a file.
TABLES = {"betas": (1000,), "alphas_cumprod": (1000,), "sqrt_one_minus_alphas_cumprod": (1000,)}


def sd1(unet, vae, text):
    return {
        **TABLES,
        **_under("model.diffusion_model.", unet),
        **_under("first_stage_model.", vae),
        **_under("cond_stage_model.transformer.", clip(text)),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": (1, text.length),
    }


def sd2(unet, vae, text):
    return {
        **TABLES,
        **_under("model.diffusion_model.", unet),
        **_under("first_stage_model.", vae),
        **_under("cond_stage_model.model.", open_clip(text)),
    }


def sdxl(unet, vae, text, text_2):
    return {
        "denoiser.sigmas": (1000,),
        **_under("model.diffusion_model.", unet),
        **_under("first_stage_model.", vae),
        **_under("conditioner.embedders.0.transformer.", clip(text)),
        **_under("conditioner.embedders.1.model.", open_clip(text_2)),
    }


def averages(shapes):
    """The running average of the U-Net, as the original code stores it."""
    prefix = "model.diffusion_model."
    return {
        "model_ema." + name.removeprefix("model.").replace(".", ""): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


#: Small versions with all that distinguishes the families.
TINY_VAE = vae((32, 64), layers=1)


def tiny(family, in_channels=4):
    channels = (64, 128)
    if family == "sd1":
        small = unet(channels, (1, 0), 64, linear=False, in_channels=in_channels)
        return sd1(small, TINY_VAE, Text(64, 2, 50, 8))
    if family == "sd2":
        small = unet(channels, (1, 0), 64, linear=True, in_channels=in_channels)
        return sd2(small, TINY_VAE, Text(64, 24, 50, 8, projection=64))
    small = unet(channels, (0, 2), 128, linear=True, adm=64 + 6 * 32, in_channels=in_channels)
    return sdxl(small, TINY_VAE, Text(64, 2, 50, 8), Text(64, 3, 50, 8, projection=64))


#: The published ones.
FULL_VAE = vae((128, 256, 512, 512))
CLIP_L = Text(768, 12)
FULL = {
    "sd1": sd1(unet((320, 640, 1280, 1280), (1, 1, 1, 0), 768, linear=False), FULL_VAE, CLIP_L),
    "sd2": sd2(
        unet((320, 640, 1280, 1280), (1, 1, 1, 0), 1024, linear=True),
        FULL_VAE,
        Text(1024, 24, projection=1024),
    ),
    "sdxl": sdxl(
        unet((320, 640, 1280), (0, 2, 10), 2048, linear=True, adm=2816),
        FULL_VAE,
        CLIP_L,
        Text(1280, 32, projection=1280),
    ),
}


def write_hollow(path, shapes):
    """A float16 checkpoint of full size that takes no space: the data are a hole in the file."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + end)
    return path


def templates(part, config):
    """Our own model of that configuration: abstract parameters."""
    if part == "unet":
        unet = AdaptedUNet(unet=UNetConfig.from_config(config))
        return jax.eval_shape(unet.init, jax.random.key(0))["unet"]
    if part == "vae":
        model, x = AutoencoderKL(AutoencoderConfig.from_config(config)), jnp.zeros((1, 8, 8, 3))
        return jax.eval_shape(model.init, jax.random.key(0), x, jax.random.key(0))["params"]
    model, ids = CLIPTextEncoder(TextEncoderConfig.from_config(config)), jnp.zeros((1, 4), int)
    return jax.eval_shape(model.init, jax.random.key(0), ids)["params"]

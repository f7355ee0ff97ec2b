"""A CoDi super-resolution model in PyTorch diffusers.

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(DIRECTORY, trust_remote_code=True)
    large = pipe(small, num_inference_steps=4).images[0]

This file travels with the exported weights; codi_jax itself never imports it.
"""

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from PIL import Image


def cubic_matrix(size: int, scale: int) -> torch.Tensor:
    """[size * scale, size]: Keys' cubic convolution with a = -1/2, as Pillow's (PyTorch's has
    -3/4), weights renormalised at the borders."""
    at = (torch.arange(size * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = (at[:, None] - torch.arange(size, dtype=torch.float64)).abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return (weights / weights.sum(1, keepdim=True)).float()


class CoDiPipeline(DiffusionPipeline):
    """Super-resolution in 1 to 4 steps (Mei et al., CVPR 2024)."""

    _optional_components = ["text_encoder", "tokenizer"]

    def __init__(
        self, vae, unet, adapter, scheduler, text_encoder=None, tokenizer=None, scale: int = 4
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            adapter=adapter,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(scale=scale)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image,
        prompt: str = "",
        num_inference_steps: int = 4,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Enlarge ``image``. ``latents`` [1, C, h, w] is the initial noise, else it is drawn.

        ``output_type``: "pil", or "pt" for a float tensor [1, 3, H, W] in [-1, 1].
        """
        device, dtype = self._execution_device, self.unet.dtype
        lr = torch.from_numpy(np.asarray(image.convert("RGB"))).permute(2, 0, 1)[None]
        height, width = lr.shape[-2:]
        lr = torch.nn.functional.pad(
            lr.float() / 127.5 - 1, self._padding(height, width), "replicate"
        )
        condition = self._condition(lr.to(device, dtype))
        text = self._text(prompt)
        features = self.adapter(condition, text)
        if latents is None:
            latents = torch.randn(condition.shape, generator=generator)
        z = latents.to(device, dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        for t in self.progress_bar(self.scheduler.timesteps):
            output = self.adapter.predict(self.unet, z, t.expand(len(z)), text, features)
            z = self.scheduler.step(output, t, z).prev_sample
        config = self.vae.config
        z = z / config.scaling_factor + (config.shift_factor or 0.0)
        out = self.vae.decode(z).sample.clamp(-1, 1)
        scale = self.config.scale
        out = out[..., : height * scale, : width * scale].float().cpu()
        if output_type == "pt":
            return ImagePipelineOutput(images=out)
        pixels = ((out[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
        return ImagePipelineOutput(images=[Image.fromarray(pixels.numpy())])

    def _condition(self, lr):
        """Latents of the image, enlarged bicubically."""
        scale = self.config.scale
        rows, columns = (cubic_matrix(n, scale).to(lr) for n in lr.shape[-2:])
        large = (rows @ lr @ columns.T).clamp(-1, 1)
        config = self.vae.config
        mode = self.vae.encode(large).latent_dist.mode()
        return (mode - (config.shift_factor or 0.0)) * config.scaling_factor

    def _text(self, prompt):
        if self.text_encoder is None:
            return None
        ids = self.tokenizer(
            prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids.to(self._execution_device))[0].to(self.unet.dtype)

    def _padding(self, height, width):
        """To sizes that the autoencoder and the U-Net can halve."""
        levels = len(self.vae.config.block_out_channels) + len(self.unet.config.block_out_channels)
        multiple = max(-(-(2 ** (levels - 2)) // self.config.scale), 16)
        return (0, -width % multiple, 0, -height % multiple)

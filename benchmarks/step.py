"""Our training step of a U-Net beside PyTorch's, in turns on one device.

    python -m benchmarks.step --output step.json
    python -m benchmarks.step --size sd21 --batch 8 --compile --codi

Both train the same network from the same weights, exported by us for diffusers: latents are given,
the loss is the squared error of v at random times, AdamW after clipping, one average of the
parameters. On a GPU both compute in bfloat16 (PyTorch by autocast, channels last, fused AdamW), on
a CPU in float32. --codi adds our full CoDi step on pictures, which encodes them. Needs the
packages torch and diffusers.
"""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory, too

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import contest
from codi_jax.checkpoint.diffusers_format import save_model
from codi_jax.data.transforms import LATENTS
from codi_jax.model import Model
from codi_jax.run.ahead import plan_ahead
from codi_jax.run.config import ConfigDict
from codi_jax.run.plan import Plan
from codi_jax.train.flops import jaxpr_flops, utilisation
from configs import prior, sr

BATCH = {"tiny": 2, "embedded": 16, "sd21": 8}


@dataclasses.dataclass
class Ours:
    """A step of ours on random arrays, as a contender.

    Attributes:
        plan: of the run.
        params: of its model.
        latents: given to the step, or the pictures are encoded.
    """

    plan: Plan
    params: Any
    latents: bool

    def __post_init__(self) -> None:
        # The state is donated: the parameters stay for PyTorch.
        trainable, self.frozen = self.plan.split(jax.tree.map(jnp.copy, self.params))
        self.state = self.plan.create(trainable)
        shapes = {name: leaf for name, leaf in self.plan.frozen.items() if name not in self.frozen}
        draw = np.random.default_rng(0)
        self.frozen |= jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        self.batch: dict[str, Any] = {
            name: jnp.asarray(draw.integers(0, 256, leaf.shape).astype(leaf.dtype))
            for name, leaf in self.plan.batch.items()
        }
        if self.latents:
            self.batch[LATENTS] = jnp.asarray(draw.normal(size=self.shape), jnp.float32)
        self.key = jax.random.key(0)
        traced = self.plan.jit_step().trace(self.state, self.frozen, self.batch, self.key)
        self.flops = jaxpr_flops(traced.jaxpr)
        self.step = traced.lower().compile()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the latents."""
        config, vae = self.plan.config, self.plan.model.vae
        side = config.data.size // vae.downsampling
        return (config.batch_size, side, side, vae.latent_channels)

    def __call__(self) -> None:
        """One step."""
        self.state, metrics = self.step(self.state, self.frozen, self.batch, self.key)
        jax.block_until_ready(metrics)


def config_of(size: str, batch: int, method: str) -> ConfigDict:
    """The config of our step: "finetune" of a prior alone, or "codi" with a condition."""
    conditional = method == "codi"
    if size == "tiny":
        config = contest.tiny_config(method)
    elif size == "sd21":
        config = sr.get_config(f"sd21,{method}")
    else:
        config = (sr if conditional else prior).get_config(f"default,{method}")
        config.model.pretrained = "prior"
        config.data.size = 64
    if not conditional:
        config.task, config.model.adapter, config.model.trainable = "prior", "none", "unet/.*"
    config.batch_size, config.mesh.data, config.mesh.fsdp = batch, 1, 1
    config.ema = ConfigDict({"eval": 0.999, **({"target": 0.95} if conditional else {})})
    return config


class Theirs:
    """PyTorch's step on the exported network."""

    def __init__(self, ours: Ours, folder: Path, compiled: bool) -> None:
        model = ours.plan.model
        assert isinstance(model, Model)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder)
        self.unet = unet.to(self.device, memory_format=torch.channels_last).train()
        fused = self.device == "cuda"
        self.parameters = list(self.unet.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-4, weight_decay=0.01, foreach=not fused, fused=fused
        )
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        latents = np.array(ours.batch[LATENTS]).transpose(0, 3, 1, 2)
        self.latents = torch.from_numpy(latents.copy()).to(self.device)
        self.latents = self.latents.contiguous(memory_format=torch.channels_last)
        alpha, sigma = model.schedule.alpha_sigma(jnp.arange(model.schedule.num_train_timesteps))
        self.alpha, self.sigma = (
            torch.from_numpy(np.array(values)).to(self.device) for values in (alpha, sigma)
        )
        width = model.network.unet.cross_attention_dim
        self.text = None
        if width is not None:
            self.text = torch.zeros(len(latents), 77, width, device=self.device)
        self.predict = torch.compile(self.unet) if compiled else self.unet

    def __call__(self) -> None:
        """One step."""
        z, count = self.latents, len(self.alpha)
        t = torch.randint(0, count, (len(z),), device=self.device)
        alpha, sigma = (values[t][:, None, None, None] for values in (self.alpha, self.sigma))
        noise = torch.randn_like(z)
        half = self.device == "cuda"
        with torch.autocast(self.device, torch.bfloat16, enabled=half):
            output = self.predict(alpha * z + sigma * noise, t, self.text).sample
        loss = torch.nn.functional.mse_loss(output.float(), alpha * noise - sigma * z)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 0.001)
        loss.item()  # waits


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = contest.parser(__doc__)
    flags.add_argument("--codi", action="store_true", help="our full CoDi step, too")
    args = flags.parse_args(argv)
    batch = args.batch or BATCH[args.size]
    torch.set_float32_matmul_precision("high")
    planned = plan_ahead(config_of(args.size, batch, "finetune"))
    params = contest.random_params(planned.model)
    ours = Ours(planned, params, latents=True)
    contenders: dict[str, contest.Contender] = {"codi_jax": ours}
    flops = {"codi_jax": ours.flops}
    with tempfile.TemporaryDirectory() as folder:
        assert isinstance(planned.model, Model)
        unet = {"_class_name": "UNet2DConditionModel", **planned.model.network.unet.to_config()}
        save_model(folder, unet, params["unet"])
        contenders["PyTorch, eager"] = Theirs(ours, Path(folder), compiled=False)
        if args.compile:
            contenders["PyTorch, torch.compile"] = Theirs(ours, Path(folder), compiled=True)
    if args.codi:
        del params
        whole = plan_ahead(config_of(args.size, batch, "codi"))
        own = Ours(whole, contest.random_params(whole.model), latents=False)
        contenders["codi_jax, the full CoDi step"] = own
        flops["codi_jax, the full CoDi step"] = own.flops
    figures = contest.alternate(contenders, args.rounds)
    for name, count in flops.items() if figures else ():
        figures[name] |= utilisation(count, figures[name]["seconds"], jax.devices()[0])
        print(f"{name}: {figures[name]}", flush=True)
    about = {"benchmark": "step", "size": args.size, "batch": batch, "torch": torch.__version__}
    contest.report(figures, about, batch, args.output)


if __name__ == "__main__":
    main()

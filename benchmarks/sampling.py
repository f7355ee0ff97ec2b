"""Our few-step sampler beside PyTorch diffusers on the exported model, in turns on one device.

    python -m benchmarks.sampling --output sampling.json
    python -m benchmarks.sampling --size sd21 --steps 4 50

Both enlarge the same picture four times from noise: condition, steps of DDIM, decoding.
PyTorch runs the adapter that travels with every export. On a GPU both compute in bfloat16, on a CPU
in float32. Needs the packages torch and diffusers.
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
from codi_jax.checkpoint.directory import save_directory
from codi_jax.diffusion.guidance import GuidedCondition
from codi_jax.model import Model
from codi_jax.parallel.platform import compute_dtype
from codi_jax.run.ahead import plan_ahead
from codi_jax.sampling.load import load_model
from codi_jax.sampling.picture_sampler import PictureSampler
from configs import sr

#: Height and width of the picture that is enlarged.
SIDES = {"tiny": (8, 8), "embedded": (128, 192), "sd21": (128, 128)}


def model_of(size: str) -> Model:
    """The shipped demo, or random parameters of another size."""
    if size == "embedded":
        model = load_model("demo")
        assert isinstance(model, Model)
        return model
    config = contest.tiny_config("codi") if size == "tiny" else sr.get_config(size)
    config.mesh.data = 1
    planned = plan_ahead(config).model
    assert isinstance(planned, Model)
    return dataclasses.replace(planned, params=contest.random_params(planned))


def ours(
    model: Model, arrays: dict[str, Any], text: dict[str, Any], steps: int
) -> contest.Contender:
    """Our sampler as a contender; it returns the pictures."""
    dtype = compute_dtype("auto")
    network = dataclasses.replace(model.network, dtype=dtype, remat="none")
    sampler = PictureSampler(dataclasses.replace(model, network=network, params={}), dtype)
    params, key = jax.device_put(model.params), jax.random.key(0)
    words = GuidedCondition(cond=text)
    return lambda: np.asarray(sampler.conditional(params, arrays, key, steps, words))


class Theirs:
    """diffusers' pipeline of the export, without its conversions from and to PIL."""

    def __init__(
        self, folder: Path, low: np.ndarray, text: dict[str, Any], steps: int, compiled: bool
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder, trust_remote_code=True, text_encoder=None, tokenizer=None
        )
        self.pipe = pipe.to(self.device, self.dtype)
        self.pipe.unet.to(memory_format=torch.channels_last)
        self.steps = steps
        self.low = torch.from_numpy(low.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        words = text.get("text")
        self.text = None if words is None else torch.from_numpy(np.array(words)).to(self.device)
        self.text = None if self.text is None else self.text.to(self.dtype)
        if compiled:
            self.pipe.unet.compile()

    @torch.no_grad()
    def __call__(self) -> np.ndarray:
        """Pictures, as bytes on the host."""
        pipe = self.pipe
        condition = pipe._condition(self.low.to(self.device, self.dtype))
        features = pipe.adapter(condition, self.text)
        z = torch.randn(condition.shape, dtype=self.dtype, device=self.device)
        pipe.scheduler.set_timesteps(self.steps, device=self.device)
        for t in pipe.scheduler.timesteps:
            output = pipe.adapter.predict(pipe.unet, z, t.expand(len(z)), self.text, features)
            z = pipe.scheduler.step(output, t, z).prev_sample
        z = z / pipe.vae.config.scaling_factor + pipe._shift()
        out = pipe.vae.decode(z).sample.clamp(-1, 1).float()
        return ((out + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    flags = contest.parser(__doc__)
    flags.add_argument("--steps", type=int, nargs="+", default=[4], help="of sampling")
    args = flags.parse_args(argv)
    batch = args.batch or 1
    torch.set_float32_matmul_precision("high")
    model = model_of(args.size)
    shape = (batch, *SIDES[args.size], 3)
    low = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    width = model.network.unet.cross_attention_dim
    text = {} if width is None else {"text": jnp.zeros((1, 77, width))}
    contenders: dict[str, contest.Contender] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_directory(folder, model)
        for steps in args.steps:
            told = f"{steps} steps"
            contenders[f"codi_jax, {told}"] = ours(model, {"lr": jnp.asarray(low)}, text, steps)
            for compiled in (False, True) if args.compile else (False,):
                name = f"PyTorch, {'torch.compile' if compiled else 'eager'}, {told}"
                contenders[name] = Theirs(Path(folder), low, text, steps, compiled)
        figures = contest.alternate(contenders, args.rounds)
    about = {"benchmark": "sampling", "size": args.size, "batch": batch}
    about |= {"picture": f"{shape[2]}x{shape[1]}, four times", "torch": torch.__version__}
    contest.report(figures, about, batch, args.output)


if __name__ == "__main__":
    main()

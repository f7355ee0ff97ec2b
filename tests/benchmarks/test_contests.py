"""Our step and sampler beside PyTorch's: the slow test of accelerator.sh runs all, at tiny size."""

import jax
import pytest

pytest.importorskip("torch", reason="parity extra")
pytest.importorskip("diffusers", reason="parity extra")

from benchmarks import sampling, step
from codi_jax.run.ahead import plan_ahead


@pytest.mark.parametrize("size", ["tiny", "embedded"])
def test_the_network_of_the_step_reads_its_latents(size: str) -> None:
    model = plan_ahead(step.config_of(size, 2, "finetune")).model
    assert model.network.unet.in_channels == model.vae.latent_channels
    assert model.network.unet.cross_attention_dim is None


def test_both_sample(unchecked, capsys: pytest.CaptureFixture[str]) -> None:
    with jax.numpy_dtype_promotion("standard"):
        sampling.main(["--size", "tiny", "--rounds", "0"])
    told = capsys.readouterr().out
    assert "codi_jax, 4 steps: first call" in told and "PyTorch, eager, 4 steps: first" in told

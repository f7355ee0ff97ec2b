"""The same sampler here and in PyTorch diffusers, for the tests of schedulers."""

import sys
import unittest.mock
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")

from codi_jax.diffusion.guidance import GuidedCondition  # noqa: E402
from codi_jax.diffusion.sampler import initial_noise, sample  # noqa: E402
from codi_jax.diffusion.sampler_config import SamplerConfig  # noqa: E402
from codi_jax.diffusion.schedules import (  # noqa: E402
    schedule_from_config,
)

N = 1000
STEPS = (1, 2, 4, 10, 20, 50)
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KEY = jax.random.key(7)
Z_T = np.random.default_rng(0).standard_normal((2, 3, 3, 4)).astype(np.float32)


def scheduler(name, **settings):
    """A diffusers scheduler with Stable Diffusion's betas."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "dpmsolver" is deprecated there
        return getattr(diffusers, name)(**{**SD_BETAS, **settings})


def dpm(**settings):
    return scheduler("DPMSolverMultistepScheduler", **settings)


def ddim(**settings):
    return scheduler("DDIMScheduler", **{"clip_sample": False, **settings})


def network(xp, z, t):
    """A smooth function of the latents and the time, as a network would be; any output."""
    tau = t / N
    return 0.8 * z * tau + 0.4 * xp.sin(2 * z + 3 * tau)


def predict(params, z_t, t, cond):
    return network(jnp, z_t, t.astype(jnp.float32)[:, None, None, None])


def config_of(theirs_):
    """What diffusers would save."""
    return dict(theirs_.config, _class_name=type(theirs_).__name__)


def theirs(theirs_, steps):
    """The latents that a diffusers scheduler ends with."""
    theirs_.set_timesteps(steps)
    z = torch.from_numpy(Z_T)
    if hasattr(theirs_, "state_in_first_order") or "Euler" in type(theirs_).__name__:
        # These two hold z / alpha. (Their init_noise_sigma, for "trailing" and "linspace", is
        # sigma / alpha instead of 1 / alpha: 0.998 of it.)
        z = z * (theirs_.sigmas.max() ** 2 + 1) ** 0.5
    noise = iter(step_noise(steps))
    with unittest.mock.patch.multiple(
        sys.modules[type(theirs_).__module__],
        randn_tensor=lambda *args, **kwargs: torch.from_numpy(next(noise)),
        create=True,
    ):
        for t in theirs_.timesteps:
            output = network(np, theirs_.scale_model_input(z, t).numpy(), np.float32(t))
            z = theirs_.step(torch.from_numpy(output), t, z).prev_sample
    return z.numpy()


def step_noise(steps):
    """What our stochastic solvers draw."""
    return [np.array(initial_noise(key, Z_T.shape)) for key in jax.random.split(KEY, steps)]


def ours(theirs_, steps, schedule=None):
    """The latents of our sampler with the settings of a diffusers scheduler."""
    config = config_of(theirs_)
    return sample(
        predict,
        {},
        schedule or schedule_from_config(config),
        config["prediction_type"],
        jnp.asarray(Z_T),
        GuidedCondition(),
        num_inference_steps=steps,
        sampler=SamplerConfig.from_config(config),
        key=KEY,
    )


def assert_same(theirs_, steps, tolerance=1e-4):
    expected = theirs(theirs_, steps)
    # Predicting eps divides by alpha (0.07 at the first step): latents reach 10 and more.
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(ours(theirs_, steps), expected, atol=tolerance * scale, rtol=0)

"""Deterministic sampling: one `jax.lax.scan` of DDIM steps over precomputed step infos."""

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.diffusion.guidance import cfg_predict
from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.schedules import Schedule
from codi_jax.diffusion.solvers import StepInfo, ddim_step
from codi_jax.typing import Array, Cond, Params, PredictFn


def initial_noise(key: Array, shape: tuple[int, ...]) -> Array:
    """``z_T``: standard normal, float32 of ``shape``."""
    return jax.random.normal(key, shape, jnp.float32)


def step_infos(schedule: Schedule, timesteps: np.ndarray) -> StepInfo:
    """The steps ``timesteps[i] -> timesteps[i + 1]``, the last one to clean data (t = -1).

    Args:
        schedule: gives alpha and sigma.
        timesteps: descending int32 [n].

    Returns:
        A `StepInfo` of arrays [n].
    """
    s = np.append(timesteps[1:], np.int32(-1))
    return StepInfo(
        jnp.asarray(timesteps),
        *schedule.alpha_sigma(jnp.asarray(timesteps)),
        *schedule.alpha_sigma(jnp.asarray(s)),
    )


def sample(
    predict: PredictFn,
    params: Params,
    schedule: Schedule,
    prediction_type: str,
    z_T: Array,
    cond: Cond,
    *,
    num_inference_steps: int,
    uncond: Cond | None = None,
    guidance_scale: Array | float = 1.0,
    timestep_spacing: str = "trailing",
    steps_offset: int = 0,
    clip_sample_range: float | None = None,
) -> Array:
    """Latents ``x`` from noise ``z_T`` with DDIM (eq. 8).

    May run under jit; everything but arrays is static.

    Args:
        predict: the network, called once a step with ``t`` int32 [B] (on a doubled batch
            under guidance).
        params: its parameters.
        schedule: the one that it was trained with.
        prediction_type: what it predicts.
        z_T: standard normal noise [B, h, w, C].
        cond: the condition.
        num_inference_steps: number of network calls, at least 1.
        uncond: see `cfg_predict`; needed unless ``guidance_scale`` is 1.0.
        guidance_scale: weight of classifier-free guidance; 1.0 is none.
        timestep_spacing: see `inference_timesteps`.
        steps_offset: see `inference_timesteps`.
        clip_sample_range: clip ``x_hat`` to plus or minus this value in every step, as
            diffusers' ``clip_sample`` does (for pixels; latents have no natural range).

    Returns:
        float32 [B, h, w, C].

    Raises:
        UserError: a name or a number of steps that the schedule cannot serve, or guidance
            without ``uncond``.
    """
    check_prediction_type(schedule, prediction_type)
    timesteps = schedule.timesteps(num_inference_steps, timestep_spacing, steps_offset)

    def step(z_t: Array, info: StepInfo) -> tuple[Array, None]:
        t = jnp.full(z_t.shape[:1], info.t)
        output = cfg_predict(predict, params, z_t, t, cond, uncond, guidance_scale)
        x_hat, eps_hat = to_x_eps(
            prediction_type, output.astype(jnp.float32), z_t, info.alpha_t, info.sigma_t
        )
        if clip_sample_range is not None:
            x_hat = jnp.clip(x_hat, -clip_sample_range, clip_sample_range)
        return ddim_step(x_hat, eps_hat, info.alpha_s, info.sigma_s), None

    x, _ = jax.lax.scan(step, z_T.astype(jnp.float32), step_infos(schedule, timesteps))
    return x

"""Deterministic sampling: one `jax.lax.scan` over precomputed step infos."""

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.diffusion.guidance import cfg_predict
from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.diffusion.solvers import StepInfo, ddim_step, multistep_corrections, step_orders
from codi_jax.diffusion.timesteps import inference_timesteps
from codi_jax.typing import Array, Cond, Params, PredictFn

#: Trailing DDIM that ends at clean data.
DEFAULT_SAMPLER = SamplerConfig()


def initial_noise(key: Array, shape: tuple[int, ...]) -> Array:
    """``z_T``: standard normal, float32 of ``shape``.

    With keys [B], one for each of ``shape[0]`` images, an image's noise does not depend on the
    batch that it is in.
    """
    if key.ndim:
        return jax.vmap(lambda k: jax.random.normal(k, shape[1:], jnp.float32))(key)
    return jax.random.normal(key, shape, jnp.float32)


def step_infos(schedule: Schedule, sampler: SamplerConfig, num_inference_steps: int) -> StepInfo:
    """Everything about the steps that does not depend on the latents.

    Returns:
        A `StepInfo` of arrays [n] and, of the correction, [n, order - 1].

    Raises:
        UserError: see `inference_timesteps`.
    """
    multistep = sampler.solver != "ddim"
    timesteps = inference_timesteps(
        schedule.num_train_timesteps,
        num_inference_steps,
        sampler.timestep_spacing,
        sampler.steps_offset,
        endpoint=not multistep,
    )
    clean = sampler.final_sigmas_type == "zero"
    times = np.append(timesteps, np.int32(-1 if clean else 0))
    with jax.ensure_compile_time_eval():  # numbers under jit too: the coefficients need them
        alpha, sigma = (np.asarray(a) for a in schedule.alpha_sigma(jnp.asarray(times)))
    corrections = np.zeros((num_inference_steps, 0))
    if multistep:
        orders = step_orders(
            num_inference_steps,
            sampler.solver_order,
            lower_order_final=sampler.lower_order_final,
            # The log-SNR of clean data is infinite: only a first-order step can end there.
            euler_at_final=sampler.euler_at_final or clean,
        )
        corrections = multistep_corrections(
            sampler.solver, alpha, sigma, orders, sampler.solver_type
        )
    return StepInfo(
        t=jnp.asarray(timesteps),
        alpha_t=jnp.asarray(alpha[:-1]),
        sigma_t=jnp.asarray(sigma[:-1]),
        alpha_s=jnp.asarray(alpha[1:]),
        sigma_s=jnp.asarray(sigma[1:]),
        correction=jnp.asarray(corrections, jnp.float32),
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
    sampler: SamplerConfig = DEFAULT_SAMPLER,
) -> Array:
    """Latents ``x`` from noise ``z_T``.

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
        sampler: the solver and the times of its steps.

    Returns:
        float32 [B, h, w, C].

    Raises:
        UserError: a name or a number of steps that the schedule cannot serve, or guidance
            without ``uncond``.
    """
    check_prediction_type(schedule, prediction_type)
    infos = step_infos(schedule, sampler, num_inference_steps)
    history_length = infos.correction.shape[1]

    def step(
        carry: tuple[Array, tuple[Array, ...]], info: StepInfo
    ) -> tuple[tuple[Array, tuple[Array, ...]], None]:
        z_t, history = carry
        t = jnp.full(z_t.shape[:1], info.t)
        output = cfg_predict(predict, params, z_t, t, cond, uncond, guidance_scale)
        x_hat, eps_hat = to_x_eps(
            prediction_type, output.astype(jnp.float32), z_t, info.alpha_t, info.sigma_t
        )
        if sampler.clip_sample_range is not None:
            x_hat = jnp.clip(x_hat, -sampler.clip_sample_range, sampler.clip_sample_range)
        z_s = ddim_step(x_hat, eps_hat, info.alpha_s, info.sigma_s)
        predictions = (eps_hat if sampler.solver == "dpmsolver" else x_hat, *history)
        for k in range(history_length):
            z_s += info.correction[k] * (predictions[k] - predictions[k + 1])
        return (z_s, predictions[:history_length]), None

    z_T = z_T.astype(jnp.float32)
    # The zeros are never seen: the correction of a step without a history is zero.
    history = (jnp.zeros_like(z_T),) * history_length
    (x, _), _ = jax.lax.scan(step, (z_T, history), infos)
    return x

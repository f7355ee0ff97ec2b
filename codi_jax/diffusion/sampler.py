"""Sampling: one `jax.lax.scan` over the network calls of a run, whatever the solver."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from codi_jax.diffusion.guidance import GuidedCondition, guided_predict
from codi_jax.diffusion.network_calls import network_calls
from codi_jax.diffusion.parameterization import check_prediction_type, to_x_eps
from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.diffusion.schedules import Schedule
from codi_jax.diffusion.timesteps import consistency_timesteps, inference_timesteps
from codi_jax.typing import Params, PredictFn, UserError

#: ``(x_hat, eps_hat)`` of the calls before, latest first.
History = tuple[tuple[Array, Array], ...]
#: Trailing DDIM that ends at clean data.
DEFAULT_SAMPLER = SamplerConfig()


class StepInfo(NamedTuple):
    """What a sampler knows of one network call before it starts; stacked over calls for a scan.

    The weights are those of :class:`codi_jax.diffusion.network_calls.NetworkCalls`.
    """

    #: int32, the time that the network is called with.
    t: Int[Array, "*calls"]
    alpha_t: Float[Array, "*calls"]
    sigma_t: Float[Array, "*calls"]
    x_weights: Float[Array, "*calls predictions"]
    eps_weights: Float[Array, "*calls predictions"]
    noise_weight: Float[Array, "*calls"]


def initial_noise(key: Key[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """``z_T``: standard normal, float32 of ``shape``.

    With keys [B], one for each of ``shape[0]`` images, an image's noise does not depend on the
    batch that it is in.
    """
    if key.ndim:
        return jax.vmap(lambda k: jax.random.normal(k, shape[1:], jnp.float32))(key)
    return jax.random.normal(key, shape, jnp.float32)


def call_keys(key: Key[Array, "*batch"], num_calls: int) -> Key[Array, " {num_calls} *batch"]:
    """A key for the noise of each network call: [num_calls], or [num_calls, B] of keys [B]."""
    if key.ndim == 0:
        return jax.random.split(key, num_calls)
    return jax.vmap(lambda k: jax.random.split(k, num_calls), out_axes=1)(key)


def step_infos(schedule: Schedule, sampler: SamplerConfig, num_inference_steps: int) -> StepInfo:
    """Everything about a run's network calls that does not depend on the latents.

    Returns:
        A `StepInfo` of arrays [calls] and, of the weights, [calls, K]; ``t.size`` is the number
        of calls.

    Raises:
        UserError: see `inference_timesteps` and `consistency_timesteps`.
    """
    if sampler.solver == "consistency":
        timesteps = consistency_timesteps(
            schedule.num_train_timesteps, num_inference_steps, sampler.original_inference_steps
        )
    else:
        timesteps = inference_timesteps(
            schedule.num_train_timesteps,
            num_inference_steps,
            sampler.timestep_spacing,
            sampler.steps_offset,
            endpoint=sampler.solver in ("ddim", "heun"),
        )
    clean = sampler.final_sigmas_type == "zero"
    times = np.append(timesteps, np.int32(-1 if clean else 0))
    with jax.ensure_compile_time_eval():  # numbers under jit too: the weights need them
        alpha, sigma = (np.asarray(a) for a in schedule.alpha_sigma(jnp.asarray(times)))
    calls = network_calls(sampler, timesteps, alpha, sigma)
    return StepInfo(
        t=jnp.asarray(times[calls.level]),
        alpha_t=jnp.asarray(alpha[calls.level]),
        sigma_t=jnp.asarray(sigma[calls.level]),
        x_weights=jnp.asarray(calls.x_weights, jnp.float32),
        eps_weights=jnp.asarray(calls.eps_weights, jnp.float32),
        noise_weight=jnp.asarray(calls.noise_weight, jnp.float32),
    )


def sample(
    predict: PredictFn,
    params: Params,
    schedule: Schedule,
    prediction_type: str,
    z_T: Float[Array, "batch height width channels"],
    condition: GuidedCondition,
    *,
    num_inference_steps: int,
    sampler: SamplerConfig = DEFAULT_SAMPLER,
    key: Key[Array, "..."] | None = None,
) -> Float[Array, "batch height width channels"]:
    """Latents ``x`` from noise ``z_T``.

    May run under jit; everything but arrays is static.

    Args:
        predict: the network, called with ``t`` int32 [B]; guidance calls it with a batch two or
            three times as large.
        params: its parameters.
        schedule: the one that it was trained with.
        prediction_type: what it predicts.
        z_T: standard normal noise [B, h, w, C].
        condition: what the network reads, and how it is guided.
        num_inference_steps: n, as diffusers counts steps, at least 1: the number of network
            calls, but 2 n - 1 with the solver "heun" (see `network_calls`).
        sampler: the solver and the times of its steps.
        key: of the noise of a stochastic solver; call i of m draws `initial_noise` of
            ``call_keys(key, m)[i]``. Other solvers do not use it.

    Returns:
        float32 [B, h, w, C].

    Raises:
        UserError: a name or a number of steps that the schedule cannot serve, or a stochastic
            solver without ``key``.
    """
    check_prediction_type(schedule, prediction_type)
    infos = step_infos(schedule, sampler, num_inference_steps)
    num_calls, num_predictions = infos.x_weights.shape
    keys = _noise_keys(sampler, key, num_calls)

    def step(
        carry: tuple[Array, History], xs: tuple[StepInfo, Key[Array, "..."] | None]
    ) -> tuple[tuple[Array, History], None]:
        (z_t, history), (info, noise_key) = carry, xs
        t = jnp.full(z_t.shape[:1], info.t)
        output = guided_predict(predict, params, z_t, t, condition)
        noise = None if noise_key is None else initial_noise(noise_key, z_t.shape)
        return advance(prediction_type, sampler, info, z_t, output, history, noise), None

    z_T = z_T.astype(jnp.float32)
    # The zeros are never seen: the weights of what is not there yet are zero.
    history = ((jnp.zeros_like(z_T),) * 2,) * (num_predictions - 1)
    (x, _), _ = jax.lax.scan(step, (z_T, history), (infos, keys))
    return x


def advance(
    prediction_type: str,
    sampler: SamplerConfig,
    info: StepInfo,
    z_t: Float[Array, "*shape"],
    output: Float[Array, "*shape"],
    history: History,
    noise: Float[Array, "*shape"] | None = None,
) -> tuple[Float[Array, "*shape"], History]:
    """From one network call to the next: elementwise, so that parts of latents can be computed.

    Args:
        prediction_type: what the network predicts.
        sampler: its settings.
        info: of this call.
        z_t: what the network read.
        output: what it gave, after guidance.
        history: predictions of the calls before, latest first: one less than ``info`` has weights.
        noise: of a stochastic solver.

    Returns:
        ``z_s``, the latents of the next call or the result, and its history.
    """
    x_eps = to_x_eps(prediction_type, output.astype(jnp.float32), z_t, info.alpha_t, info.sigma_t)
    predictions = (_clipped(x_eps, sampler.clip_sample_range), *history)
    return _next_latents(info, predictions, noise), predictions[: len(history)]


def _noise_keys(
    sampler: SamplerConfig, key: Key[Array, "*batch"] | None, num_calls: int
) -> Key[Array, " {num_calls} *batch"] | None:
    """See :func:`call_keys`; None for a solver that draws no noise."""
    if not sampler.stochastic:
        return None
    if key is None:
        raise UserError(f"solver={sampler.solver!r} draws noise: give a key.")
    return call_keys(key, num_calls)


def _clipped(x_eps: tuple[Array, Array], limit: float | None) -> tuple[Array, Array]:
    """``(x_hat, eps_hat)`` with ``x_hat`` in [-limit, limit], if there is a limit."""
    x_hat, eps_hat = x_eps
    return (x_hat if limit is None else jnp.clip(x_hat, -limit, limit)), eps_hat


def _next_latents(
    info: StepInfo, predictions: History, noise: Float[Array, "*shape"] | None
) -> Float[Array, "*shape"]:
    """``z_s``: the weighted sum of the predictions, latest first, and of new noise."""
    z_s = jnp.zeros_like(predictions[0][0])
    for k, (x_hat, eps_hat) in enumerate(predictions):
        z_s += info.x_weights[k] * x_hat + info.eps_weights[k] * eps_hat
    if noise is not None:
        z_s += info.noise_weight * noise
    return z_s

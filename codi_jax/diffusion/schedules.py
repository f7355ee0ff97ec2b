"""Variance-preserving noise schedules: ``z_t = alpha_t x + sigma_t eps`` (paper, eq. 1).

Time ``t`` counts the grid of training timesteps, ``-1, 0, ..., N - 1`` with
``N = num_train_timesteps``. ``t = -1`` is the clean data (alpha = 1, sigma = 0) and
``t = N - 1`` is the noisiest level; ``0 ... N - 1`` are diffusers' indices into
``alphas_cumprod``. One schedule object is saved with the weights and serves training *and*
sampling.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Real, Shaped

from codi_jax.typing import UserError, check_choice, check_fields

BETA_SCHEDULES = ("scaled_linear", "linear", "squaredcos_cap_v2")


@runtime_checkable
class Schedule(Protocol):
    """What the losses and the sampler know of a noise schedule."""

    @property
    def num_train_timesteps(self) -> int:
        """N: the network is called with ``t`` in [0, N - 1]."""

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether alpha is exactly 0 at ``t = N - 1``, where eps then says nothing about x."""

    def alpha_sigma(
        self, t: Real[Array, "*times"]
    ) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        """``(alpha_t, sigma_t)``, float32; ``t`` in [-1, N - 1]."""

    def sample_t(self, key: Key[Array, ""], shape: tuple[int, ...], dt: int) -> Real[Array, "..."]:
        """Training times uniform on [dt, N - 1], so that ``s = t - dt`` stays in [0, N - 1]."""

    def to_config(self, prediction_type: str | None = None) -> dict[str, object]:
        """The content of a ``scheduler_config.json``; `schedule_from_config` reads it back.

        Args:
            prediction_type: what the network that is saved beside it predicts. The schedule
                does not know it, so the key is left out unless it is given here; diffusers
                reads a missing one as "epsilon".
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainingGrid:
    """What both schedules share: the number of timesteps."""

    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        check_fields(self)
        if not 2 <= self.num_train_timesteps <= 1_000_000:
            raise UserError(
                f"num_train_timesteps={self.num_train_timesteps} must be in [2, 1000000] "
                "(1000 is the usual value)."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteSchedule(_TrainingGrid):
    """The grid of betas of a diffusers checkpoint; the defaults are Stable Diffusion's.

    ``alpha_t^2`` is diffusers' ``alphas_cumprod[t]``, the running product of ``1 - beta``.

    Attributes:
        num_train_timesteps: N, at least 2.
        beta_start: beta at t = 0 (not used by "squaredcos_cap_v2").
        beta_end: beta at t = N - 1 (not used by "squaredcos_cap_v2").
        beta_schedule: "scaled_linear" (linear in sqrt(beta)), "linear", or
            "squaredcos_cap_v2" (Nichol & Dhariwal 2021, betas capped at 0.999).
        rescale_betas_zero_snr: shift and scale alpha so that alpha = 0 at t = N - 1
            (Lin et al. 2023, algorithm 1).

    Raises:
        UserError: unknown ``beta_schedule``, or a value out of range.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_betas_zero_snr: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise UserError(
                f"beta_start={self.beta_start} and beta_end={self.beta_end} must satisfy "
                "0 < beta_start <= beta_end < 1."
            )

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether alpha is exactly 0 at ``t = N - 1``."""
        return self.rescale_betas_zero_snr

    def alpha_sigma(
        self, t: Int[Array, "*times"]
    ) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        """``(alpha_t, sigma_t)``, float32.

        A ``t`` outside [-1, N - 1] gives NaN: no exception can be raised under jit, and the
        default behaviour of indexing (wrap, clamp) would hide the mistake.
        """
        alpha, sigma = (
            jnp.asarray(table)
            .at[jnp.asarray(t) + 1]
            .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
            for table in _discrete_tables(self)
        )
        return alpha, sigma

    def sample_t(self, key: Key[Array, ""], shape: tuple[int, ...], dt: int) -> Int[Array, "..."]:
        """int32 of ``shape``, uniform on {dt, ..., N - 1}."""
        return jax.random.randint(key, shape, dt, self.num_train_timesteps, jnp.int32)

    def to_config(self, prediction_type: str | None = None) -> dict[str, object]:
        """The config of diffusers' ``DDIMScheduler``; see `Schedule.to_config`."""
        config: dict[str, Any] = {
            "_class_name": "DDIMScheduler",
            **dataclasses.asdict(self),
            "trained_betas": None,
            "timestep_spacing": "trailing",
            "steps_offset": 0,
            "set_alpha_to_one": True,
            "clip_sample": False,
        }
        return config | _prediction_type_entry(prediction_type)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContinuousSchedule(_TrainingGrid):
    """Cosine schedule in ``u = (t + 1) / N``, defined for integer and for real ``t``.

    ``alpha = cos(phi)``, ``sigma = sin(phi)`` with the angle ``phi`` linear in u, from 0 at
    t = -1 to ``arctan(exp(-log_snr_min / 2))`` at t = N - 1: the cosine schedule of Nichol &
    Dhariwal (2021) whose log-SNR ``log(alpha^2 / sigma^2)`` is bounded below by a slight
    squeeze of the angle, so that no two timesteps share a noise level. No upper bound is
    needed: the network is never called below t = 0, where ``u = 1 / N``.

    Attributes:
        num_train_timesteps: N, at least 2; it only fixes the unit of ``t``.
        log_snr_min: log-SNR at t = N - 1, in nats; negative and finite.

    Raises:
        UserError: a value out of range.
    """

    log_snr_min: float = -15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -80.0 <= self.log_snr_min < 0.0:  # exp(-80 / 2) is a float32 still far from 0
            raise UserError(
                f"log_snr_min={self.log_snr_min} must be in [-80, 0): -15 is the usual value."
            )

    @property
    def zero_terminal_snr(self) -> bool:
        """False: the log-SNR is bounded below."""
        return False

    def alpha_sigma(
        self, t: Real[Array, "*times"]
    ) -> tuple[Float[Array, "*times"], Float[Array, "*times"]]:
        """``(alpha_t, sigma_t)``, float32; ``t`` may lie between two timesteps."""
        n = self.num_train_timesteps
        time = jnp.asarray(t).astype(jnp.float32)
        phi_min_alpha = math.atan(math.exp(self.log_snr_min / 2))  # pi/2 - phi at t = N - 1
        phi_max = math.pi / 2 - phi_min_alpha
        # alpha as the sine of the complementary angle: cos(phi) near pi/2 would lose digits.
        alpha = jnp.sin((n - 1 - time) * (phi_max / n) + phi_min_alpha)
        sigma = jnp.sin((time + 1) * (phi_max / n))
        return alpha, sigma

    def sample_t(self, key: Key[Array, ""], shape: tuple[int, ...], dt: int) -> Float[Array, "..."]:
        """float32 of ``shape``, uniform on the interval [dt, N - 1]."""
        return jax.random.uniform(
            key, shape, jnp.float32, float(dt), float(self.num_train_timesteps - 1)
        )

    def to_config(self, prediction_type: str | None = None) -> dict[str, object]:
        """No diffusers scheduler computes this schedule, so ``_class_name`` is our own."""
        config: dict[str, Any] = {"_class_name": type(self).__name__, **dataclasses.asdict(self)}
        return config | _prediction_type_entry(prediction_type)


def schedule_from_config(config: Mapping[str, object]) -> Schedule:
    """The schedule of a ``scheduler_config.json``, ours or that of a diffusers checkpoint.

    Only what defines the noise levels is read. Which diffusers scheduler wrote the file does
    not matter: Stable Diffusion 1.5 names PNDM, 2.1 DDIM, XL Euler, and their betas mean the
    same. How that scheduler samples is read by `SamplerConfig.from_config`.

    Raises:
        UserError: a key is missing or has an unknown value, or the betas are an explicit list.
    """
    values: dict[str, Any] = dict(config)
    class_name = values.get("_class_name", "unnamed")
    if class_name == ContinuousSchedule.__name__:
        _check_keys(values, ("num_train_timesteps", "log_snr_min"))
        return ContinuousSchedule(
            num_train_timesteps=values["num_train_timesteps"], log_snr_min=values["log_snr_min"]
        )
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    _check_keys(values, keys)
    if values.get("trained_betas") is not None:
        raise UserError(
            f"scheduler config ({class_name}) sets trained_betas, an explicit list of betas, "
            f"which is not supported: use a checkpoint whose beta_schedule is one of "
            f"{', '.join(BETA_SCHEDULES)}."
        )
    return DiscreteSchedule(
        **{key: values[key] for key in keys},
        # Configs written before diffusers knew the key mean False.
        rescale_betas_zero_snr=values.get("rescale_betas_zero_snr") or False,
    )


def expand(a: Shaped[Array, "..."] | float, like: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """``a`` with unit axes appended until it has as many axes as ``like`` ([B] -> [B, 1, ...])."""
    a = jnp.asarray(a)
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim))


def add_noise(
    schedule: Schedule,
    x: Float[Array, " batch *latent"],
    eps: Float[Array, " batch *latent"],
    t: Real[Array, "..."],
) -> Float[Array, " batch *latent"]:
    """``z_t = alpha_t x + sigma_t eps`` (eq. 1).

    Args:
        schedule: gives alpha and sigma.
        x: clean latents, float32 [B, ...].
        eps: standard normal noise with the shape of ``x``, float32.
        t: [B] or a scalar, in [-1, N - 1].
    """
    alpha_t, sigma_t = schedule.alpha_sigma(t)
    return expand(alpha_t, x) * x + expand(sigma_t, x) * eps


@functools.lru_cache(maxsize=16)
def _discrete_tables(
    schedule: DiscreteSchedule,
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """Float32 tables of alpha and sigma at index ``t + 1``, computed in float64.

    sigma comes from the float64 alphas_cumprod: float32's ``1 - alpha^2`` would leave it a
    relative error of 1e-4 where alpha is close to 1.
    """
    n = schedule.num_train_timesteps
    if schedule.beta_schedule == "linear":
        betas = np.linspace(schedule.beta_start, schedule.beta_end, n)
    elif schedule.beta_schedule == "scaled_linear":
        betas = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, n) ** 2
    else:
        alpha_bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    alphas_cumprod = np.cumprod(1 - betas)
    if schedule.rescale_betas_zero_snr:
        alpha = np.sqrt(alphas_cumprod)
        alphas_cumprod = ((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2
    alphas_cumprod = np.concatenate([[1.0], alphas_cumprod])
    return (
        np.sqrt(alphas_cumprod).astype(np.float32),
        np.sqrt(1 - alphas_cumprod).astype(np.float32),
    )


def _prediction_type_entry(prediction_type: str | None) -> dict[str, str]:
    return {} if prediction_type is None else {"prediction_type": prediction_type}


def _check_keys(config: Mapping[str, object], keys: Collection[str]) -> None:
    missing = [key for key in keys if key not in config]
    if missing:
        raise UserError(
            f"scheduler config ({config.get('_class_name', 'unnamed')}) has no "
            f"{', '.join(missing)}: only variance-preserving schedules given by their betas "
            f"(DDIM, PNDM, DDPM, ...) or by {ContinuousSchedule.__name__} can be read."
        )

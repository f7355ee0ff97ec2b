"""The optimiser: AdamW with warm-up, decay and gradient clipping."""

import dataclasses

import jax
import optax

from codi_jax.typing import check_choice

DECAYS = ("constant", "cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW (Loshchilov & Hutter 2019) after clipping the global gradient norm.

    Attributes:
        learning_rate: peak, reached after ``warmup_steps`` from 0.
        warmup_steps: length of the linear warm-up.
        decay: "constant", or "cosine" down to 0 at the last step.
        weight_decay: decoupled weight decay of kernels; biases, norms and ``mu`` have none.
        b1: decay of the gradient's average.
        b2: decay of the squared gradient's average.
        clip_norm: largest global norm of the gradient.
        mu_multiplier: learning rate of equation 10's scalar ``mu``, relative to the rest. ``mu``
            alone opens the whole condition path, and would move little at a network's rate.
    """

    learning_rate: float = 1e-5
    warmup_steps: int = 500
    decay: str = "constant"
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 1.0
    mu_multiplier: float = 1.0

    def __post_init__(self) -> None:
        """Check the decay; `run/ranges.py` has the ranges of the numbers."""
        check_choice("optim.decay", self.decay, DECAYS)


def make_schedule(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of steps done.

    Args:
        config: the settings.
        total_steps: of the run. A shorter run than the warm-up ends at the peak.
    """
    warmup = min(config.warmup_steps, max(total_steps - 1, 0))
    if config.decay == "cosine":
        return optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, warmup, max(total_steps, warmup + 1)
        )
    ramp = optax.linear_schedule(0.0, config.learning_rate, max(warmup, 1))
    return ramp if warmup else optax.constant_schedule(config.learning_rate)


def make_optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """The optax transformation of ``config``.

    Args:
        config: the settings.
        total_steps: of the run.
    """

    def is_kernel(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) == "kernel", params)

    def is_mu(params: optax.Params) -> optax.Params:
        return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) == "mu", params)

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.scale_by_adam(b1=config.b1, b2=config.b2),
        optax.add_decayed_weights(config.weight_decay, mask=is_kernel),
        optax.masked(optax.scale(config.mu_multiplier), is_mu),
        optax.scale_by_learning_rate(make_schedule(config, total_steps)),
    )


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path[-1:], simple=True)

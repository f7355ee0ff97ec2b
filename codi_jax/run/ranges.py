"""Which values the keys of a config can have; whatever is outside is refused before anything else.

What a value must fit with others (a batch with the devices, a size with the networks) is checked
where both are known, in the plan.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from codi_jax import trees
from codi_jax.data.sources.caching import MODES
from codi_jax.diffusion.parameterization import PREDICTION_TYPES
from codi_jax.run.config import ConfigDict
from codi_jax.typing import UserError, check_choice, fits


class _Range(NamedTuple):
    """From ``low`` to ``high``; a float stays below a finite ``high`` unless ``closed``."""

    low: float
    high: float = math.inf
    kind: type = int
    closed: bool = True

    def __str__(self) -> str:
        number = "a whole number" if self.kind is int else "a number"
        if self.high == math.inf:
            return f"{number}, at least {self.low:g}"
        high = f"{self.high:d}" if isinstance(self.high, int) else f"{self.high:g}"
        return f"{number} from {self.low:g} to {'' if self.closed else 'below '}{high}"


_POSITIVE, _COUNT = _Range(1), _Range(0)
_SHARE = _Range(0.0, 1.0, float)
_DECAY = _Range(0.0, 1.0, float, closed=False)
_WEIGHT = _Range(0.0, kind=float)
_ABOVE_ZERO = _Range(1e-12, kind=float)
_RANGES = {
    "seed": _Range(0, 2**32 - 1),
    "steps": _POSITIVE,
    "batch_size": _POSITIVE,
    "accumulation": _POSITIVE,
    "log_every": _POSITIVE,
    "model.time_cond_proj_dim": _Range(0, 2**16),
    "model.vae_batch": _COUNT,
    "optim.learning_rate": _Range(1e-12, 1e3, float),
    "optim.warmup_steps": _COUNT,
    "optim.weight_decay": _Range(0.0, 1e3, float),
    "optim.b1": _DECAY,
    "optim.b2": _DECAY,
    "optim.clip_norm": _ABOVE_ZERO,
    "optim.mu_multiplier": _Range(0.0, 1e9, float),
    "data.size": _Range(1, 2**14),
    "data.scale": _Range(1, 64),
    "data.clean_share": _SHARE,
    "data.chart_share": _SHARE,
    "data.prompt_dropout": _SHARE,
    "data.num_workers": _Range(0, 1024),
    "data.max_corrupt": _COUNT,
    "data.cache_gb": _Range(0.0, 1e6, float),
    "eval.every": _POSITIVE,
    "eval.count": _POSITIVE,
    "eval.size": _Range(1, 2**14),
    "checkpoint.every": _POSITIVE,
    "checkpoint.keep": _POSITIVE,
}
#: Fields of losses, where they have them and set them.
_OF_LOSSES = {
    "data_weight": _WEIGHT,
    "consistency_weight": _WEIGHT,
    "kl_weight": _WEIGHT,
    "edge_weight": _WEIGHT,
    "min_snr_gamma": _ABOVE_ZERO,
    "timestep_scaling": _ABOVE_ZERO,
}


def in_words(key: str) -> str:
    """What a number may be, such as "a number from 0 to 1"; "" where nothing is said here.

    Args:
        key: of the config, with dots, such as "optim.learning_rate" or "loss.data_weight".
    """
    if key.startswith("ema."):
        return str(_DECAY)
    found = _RANGES.get(key) or _OF_LOSSES.get(key.removeprefix("loss."))
    return str(found) if found else ""


def check_ranges(config: ConfigDict) -> None:
    """Check each value by itself.

    Raises:
        UserError: no config, a key that is missing, or a value out of its range; the message names
            key, value and range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config: get_config() gives a {type(config).__name__}, not a ConfigDict; start from "
            "configs/base.py."
        )
    values = trees.flatten(config.to_dict())
    for key, allowed in _RANGES.items():
        path = key.replace(".", "/")
        if path not in values:
            raise UserError(f"config.{key} is missing: start your config from configs/base.py.")
        _check(f"config.{key}", values[path], allowed)
    check_choice("config.data.cache", config.data.cache, MODES)
    check_choice("config.model.prediction_type", config.model.prediction_type, PREDICTION_TYPES)
    for key, allowed in _OF_LOSSES.items():
        if config.loss.get(key) is not None:
            _check(f"config.loss.{key}", config.loss[key], allowed)
    for name, decay in config.ema.items():
        _check(f"config.ema.{name}", decay, _DECAY)
    _check_eval_steps(config.eval.steps)


def check_sizes(config: ConfigDict, factors: Mapping[str, int]) -> None:
    """Check that the networks can read pictures of the config's sizes.

    Args:
        config: of the run.
        factors: what the sides must be multiples of, by what asks for it.

    Raises:
        UserError: a size that is no multiple of all; the message gives the nearest ones.
    """
    together = math.lcm(*factors.values())
    for key, size in (("data.size", config.data.size), ("eval.size", config.eval.size)):
        if size % together:
            below, above = size // together * together, (size // together + 1) * together
            why = ", ".join(f"{factor} ({name})" for name, factor in factors.items() if factor > 1)
            raise UserError(
                f"config.{key}={size} must be a multiple of {together}, because of {why}: use "
                f"{f'{below} or ' if below else ''}{above}."
            )


def check_steps(steps: tuple[int, ...], most: int) -> None:
    """Raises UserError where an evaluation has more sampling steps than the schedule timesteps."""
    if max(steps) > most:
        raise UserError(
            f"config.eval.steps={tuple(steps)}: the schedule has {most} timesteps, so that at most "
            f"{most} sampling steps are possible."
        )


def _check(name: str, value: object, allowed: _Range) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = isinstance(value, int) or allowed.kind is float
    inside = number and whole and allowed.low <= value <= allowed.high  # type: ignore[operator]
    if not inside or (not allowed.closed and value == allowed.high):
        raise UserError(f"{name}={value} is out of range: give {allowed}.")


def _check_eval_steps(steps: object) -> None:
    numbers: tuple[int, ...] = tuple(steps) if isinstance(steps, tuple | list) else ()
    if not numbers or not fits(numbers, tuple[int, ...]) or min(numbers) < 1:
        raise UserError(
            f"config.eval.steps={numbers}: give numbers of sampling steps, at least one of them, "
            "each at least 1; for example (1, 4)."
        )

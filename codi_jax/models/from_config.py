"""Configs of networks from diffusers' config dicts, and back."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Self

from codi_jax.typing import UserError, fits, words

#: The largest number that a config may hold: of layers, and of anything else. A file that came
#: from elsewhere must not make us build a network without end.
_MOST_LAYERS, _MOST = 1000, 2**20


class FromConfig:
    """Construction from a diffusers config dict, and back."""

    #: diffusers keys that these networks implement at one value only.
    FIXED: dict[str, Any] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """The config that the content of a ``config.json`` stands for.

        Raises:
            UserError: a key is unknown, or has a value that is not implemented, of another type
                or out of range.
        """
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        kept: dict[str, Any] = {}
        for key, value in config.items():
            if key in names:
                kept[key] = _hashable(value)
            elif key.startswith("_") or key == "sample_size":
                continue  # These say nothing about the computation.
            elif key in cls.FIXED and value == cls.FIXED[key]:
                continue
            elif key in cls.FIXED:
                raise UserError(
                    f"{cls.__name__}: {key}={value!r} is not supported (only {cls.FIXED[key]!r}); "
                    "use a checkpoint of the Stable Diffusion 1.x, 2.x or XL family."
                )
            else:
                raise UserError(
                    f"{cls.__name__}: unknown key {key!r} (value {value!r}) in the model's config; "
                    "is this a checkpoint of another architecture?"
                )
        hints = typing.get_type_hints(cls)
        for key, value in kept.items():
            _check(cls.__name__, key, value, hints[key])
        return cls(**kept)

    def to_config(self) -> dict[str, object]:
        """The config dict, JSON-ready, keys as in diffusers."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _hashable(value: Any) -> Any:
    """Lists of any depth as tuples: what was read equals what was written, and can be hashed."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value


def _check(name: str, key: str, value: object, hint: Any) -> None:
    """Raises UserError unless a value has the type of its field, and a number a sensible size."""
    if not fits(value, hint):
        raise UserError(
            f"{name}: {key}={value!r} is of a wrong type: {words(hint)} is needed. Get the "
            "config.json again."
        )
    may_be_zero = "layers" in key or key.endswith("_id") or key == "freq_shift"
    least, most = int(not may_be_zero), _MOST_LAYERS if "layers" in key else _MOST
    if any(not least <= number <= most for number in _whole_numbers(value)):
        raise UserError(f"{name}: {key}={value!r} must be in [{least}, {most}].")
    if (key.endswith("channels") and value == ()) or (key == "scaling_factor" and not value):
        raise UserError(f"{name}: {key}={value!r} describes no network.")


def _whole_numbers(value: object) -> Iterator[int]:
    if isinstance(value, tuple):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value

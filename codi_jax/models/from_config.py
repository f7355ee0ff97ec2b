"""Configs of networks from diffusers' config dicts, and back."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Self

from codi_jax.typing import UserError, check_type

#: Above any width or number of heads, and above any number of layers, of a network that runs. A
#: file that came from elsewhere must not make us build a network without end.
_LARGEST, _MOST_LAYERS = 2**20, 1000


class FromConfig:
    """Construction from a diffusers config dict, and back."""

    #: diffusers keys that these networks implement at one value only.
    FIXED: dict[str, Any] = {}
    #: Whole numbers that may be 0, and tuples that may be empty.
    MAY_BE_ZERO: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """The config that the content of a ``config.json`` stands for.

        Raises:
            UserError: a key is unknown, or has a value of another type, out of its range, or that
                is not implemented.
        """
        hints = typing.get_type_hints(cls)
        names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        kept: dict[str, Any] = {}
        for key, value in config.items():
            if key in names:
                kept[key] = _hashable(value)
                check_type(f"{cls.__name__}: {key}", kept[key], hints[key])
                cls._check_range(key, kept[key])
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
        return cls(**kept)

    @classmethod
    def _check_range(cls, key: str, value: object) -> None:
        """Sizes are positive, and there is a first level."""
        items = value if isinstance(value, tuple) else (value,)
        least = 0 if key in cls.MAY_BE_ZERO else 1
        most = _MOST_LAYERS if "layers" in key else _LARGEST
        numbers = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
        if (least and not items) or any(not least <= number <= most for number in numbers):
            raise UserError(
                f"{cls.__name__}: {key}={value!r} is out of range: give {least} to {most}"
                f"{', for each level' if isinstance(value, tuple) else ''}."
            )

    def to_config(self) -> dict[str, object]:
        """The config dict, JSON-ready, keys as in diffusers."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _hashable(value: Any) -> Any:
    """Lists of any depth as tuples: what was read equals what was written, and can be hashed."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value

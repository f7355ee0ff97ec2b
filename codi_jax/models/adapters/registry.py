"""Adapters by their kind and by the class that their configs name."""

from codi_jax.models.adapters.base import Adapter
from codi_jax.models.adapters.controlnet import ControlNet
from codi_jax.models.adapters.mix import Mix
from codi_jax.models.adapters.none import NoAdapter
from codi_jax.models.adapters.t2i import T2I
from codi_jax.typing import UserError

ADAPTERS: tuple[type[Adapter], ...] = (NoAdapter, Mix, ControlNet, T2I)
KINDS = tuple(adapter.kind for adapter in ADAPTERS)
#: ``_class_name`` of an adapter's config.json -> its class.
BY_CLASS_NAME = {adapter.class_name: adapter for adapter in ADAPTERS if adapter.class_name}
#: Where a model's directory may have an adapter.
FOLDERS = tuple(dict.fromkeys(adapter.folder for adapter in BY_CLASS_NAME.values()))


def adapter_class(kind: str) -> type[Adapter]:
    """The class of an adapter.

    Args:
        kind: one of ``KINDS``.

    Raises:
        UserError: there is none of this name.
    """
    for adapter in ADAPTERS:
        if adapter.kind == kind:
            return adapter
    raise UserError(f"adapter={kind!r} is unknown; choose one of {KINDS}.")

"""TPUs that are not there: their compiler needs no chip."""

import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from codi_jax.typing import UserError


def topology_devices(name: str) -> Sequence[jax.Device]:
    """Devices to compile for.

    Args:
        name: of a TPU slice, such as "v5e:4x4", "v5p:2x2x1" or "v6e:2x2"; "v5e:1x1" is one chip.

    Raises:
        UserError: TPU's compiler is not installed, or it does not know the slice.
    """
    try:
        import libtpu
    except ImportError as error:
        raise UserError(
            f"--topology={name} needs TPU's compiler (Linux on x86-64): pip install -e '.[aot]'."
        ) from error
    os.environ.setdefault("TPU_LIBRARY_PATH", libtpu.get_library_path())
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no chip, so nobody to ask about it
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # it guards chips: none is used
    from jax.experimental import topologies

    single = re.fullmatch(r"\w+:1(x1)+", name)  # four chips of a host are the default
    host: dict[str, Any] = {"chips_per_host_bounds": [1, 1, 1]} if single else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **host).devices
    except Exception as error:  # jaxlib's own kinds
        first = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"--topology={name!r} is no TPU slice: {first}. Give a kind and a shape, such as "
            "v5e:4x4, v5p:2x2x1 or v6e:2x2."
        ) from error

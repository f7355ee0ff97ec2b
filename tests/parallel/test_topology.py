"""Devices of TPUs that are not there."""

import importlib.util
import sys

import pytest

from codi_jax.parallel.topology import topology_devices
from codi_jax.typing import UserError


def test_without_the_compiler_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UserError, match=r"--topology=v5e:4x4 needs .*\[aot\]"):
        topology_devices("v5e:4x4")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="pip install -e '.[aot]' has TPU's compiler"
)
def test_slices() -> None:
    devices = topology_devices("v5e:4x4")
    assert len(devices) == 16 and devices[0].device_kind == "TPU v5 lite"
    assert len(topology_devices("v5e:1x1")) == len(topology_devices("v5p:1x1x1")) == 1
    with pytest.raises(UserError, match="'v9z:2x2' is no TPU slice"):
        topology_devices("v9z:2x2")

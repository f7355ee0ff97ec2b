"""The table of chips, by what jax calls them."""

import pytest

from codi_jax.parallel.chips import CHIPS, chip_of


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5", "TPU v5"),  # v5p
        ("TPU v6 lite", "TPU v6"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
    ],
)
def test_kinds_are_found(kind: str, name: str) -> None:
    assert chip_of(kind) is CHIPS[name]


def test_others_are_not() -> None:
    assert chip_of("cpu") is None

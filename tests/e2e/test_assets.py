"""The command that makes all that is shipped, at tiny size; a part that is done is skipped."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from codi_jax.data.images import save_image
from codi_jax.sampling.inspection import inspect

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_assets_are_made_by_one_command(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("train", "held_out"):
        for i in range(4):
            picture = rng.integers(0, 256, (48, 48, 3), np.uint8)
            save_image(tmp_path / folder / f"{i}.png", picture)
    environment = {**os.environ, "TINY": "1", "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}

    folders = [tmp_path / name for name in ("train", "held_out", "w")]

    def make() -> str:
        done = subprocess.run(
            [ROOT / "benchmarks" / "assets.sh", *folders],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    first = make()
    assert "done" not in first
    assert "F16" in inspect(str(tmp_path / "w" / "assets" / "demo"))
    assert "unconditional prior" in inspect(str(tmp_path / "w" / "assets" / "prior"))
    assert [line for line in make().splitlines() if line] == [
        "autoencoder: done",
        "prior: done",
        "demo: done",
    ]

"""All that a GPU is needed for, on a CPU at tiny size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_script_measures_and_prints_all(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="parity extra")
    pytest.importorskip("diffusers", reason="parity extra")
    environment = {
        **os.environ,
        "SIZES": "tiny",
        "BATCHES": "4",
        "ROUNDS": "1",
        "COMPILE": "",
        "LIMIT": "3000",
        "OUT": str(tmp_path),
        "PY": sys.executable,
        "XLA_FLAGS": "",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [ROOT / "benchmarks" / "accelerator.sh"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "no time left" not in done.stdout
    results = {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert set(results) == {"step-tiny", "sampling-tiny", "step-4"}
    assert set(results["step-tiny"]["figures"]) == {
        "codi_jax",
        "PyTorch, eager",
        "codi_jax, the full CoDi step",
    }
    assert len(results["sampling-tiny"]["figures"]) == 4  # 4 and 50 steps of both
    for result in results.values():
        for name, taken in result["figures"].items():
            assert taken["seconds"] > 0 and f"| {name} |" in (tmp_path / "tables.md").read_text()
    assert results["step-4"]["about"]["batch"] == 4

"""The command that scores: a folder, and what it says to flags that do not fit."""

import os
import subprocess
import sys
from pathlib import Path

from scipy import ndimage
from skimage import data

from codi_jax.data.images import save_image
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.results import Results

ROOT = Path(__file__).parents[1]


def evaluate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codi_jax.evaluate", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    )


def test_a_folder_from_the_command_line(tmp_path: Path) -> None:
    photo = data.astronaut()
    for i in range(3):
        crop = photo[i * 50 : i * 50 + 48, :64]
        save_image(tmp_path / "hr" / f"{i}.png", crop)
        save_image(tmp_path / "out" / f"{i}.png", ndimage.gaussian_filter(crop, (1, 1, 0)))
    done = evaluate(tmp_path, "--images=out", "--reference=hr", "--border=4", "--output=scores")
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "scores" / "results.json")
    assert results.setting == {"images": "out", "reference": "hr", "border": 4}
    scores = results.scores["images"][None]
    assert list(scores) == ["psnr", "ssim", "psnr_y", "ssim_y", "gmsd", "haarpsi", "swd"]
    assert f"{scores['psnr'].value:.2f}" in done.stdout
    assert "warning: ms_ssim is left out" in done.stdout
    assert results.metrics == {name: METRICS[name] for name in scores}
    low, high = scores["psnr"].interval
    assert low < scores["psnr"].value < high


def test_flags_that_do_not_fit(tmp_path: Path) -> None:
    done = evaluate(tmp_path, "--reference=hr")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        done.stderr == "error: give either --checkpoint, or --images and --reference; see --help.\n"
    )
    assert [*tmp_path.iterdir()] == []

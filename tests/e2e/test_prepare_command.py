"""`python -m codi_jax.prepare`, with workers."""

import subprocess
import sys
from pathlib import Path

from codi_jax.data.sources import make_source

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "codi_jax.prepare", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
    )


def test_from_photos_to_shards(tmp_path: Path) -> None:
    options = ["--source=skimage", f"--output={tmp_path / 'out'}", "--crop=256", "--canny"]
    done = command(*options, "--workers=1", "--image_format=jpeg", "--shard_images=4")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "78 records" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    shards = ["images-000000000.array_record", "images-000000004.array_record"]
    assert names == ["contact_sheet.png", *shards, "report.json"]
    source = make_source(str(tmp_path / "out" / "*.array_record"), "train")
    assert len(source) == 78 and source[77]["canny"].shape == (256, 256, 3)
    wrong = command(*options, "--resize=9")
    assert wrong.returncode == 2 and "resize=9 is below crop=256" in wrong.stderr
    assert "Traceback" not in wrong.stderr

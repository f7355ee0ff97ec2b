import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from codi_jax.data import images, prepare_units, sources
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_report import contact_columns
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.typing import UserError

ROOT = Path(__file__).parents[2]


def photo(seed, size=(48, 64)):
    noise = np.random.default_rng(seed).random((*size, 3), np.float32)
    return np.uint8(np.clip(cv2.GaussianBlur(noise, (0, 0), 4) * 900 - 322, 0, 255))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve good photos and one of each kind that is left out."""
    root = tmp_path_factory.mktemp("photos")
    rows = []
    for i in range(12):
        images.save_image(root / f"{i:02d}.png", photo(i))
        rows.append({"file_name": f"{i:02d}.png", "text": f"number {i}"})
    images.save_image(root / "03_again.png", images.resize(photo(3), (96, 128), "bicubic"))
    images.save_image(root / "04_small.png", photo(50, (20, 64)))
    (root / "05_empty.jpg").write_bytes(b"")
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


CONFIG = PrepareConfig(min_size=40, resize=40, crop=24, stride=16, canny=True, shard_images=4)


def run(folder, output, config=CONFIG, **options):
    return prepare(sources.FolderSource(folder), output, config, label="photos", **options)


def contents(output):
    return {p.name: p.read_bytes() for p in output.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "whole"
    return output, run(folder, output)


def test_report_and_records(folder, whole):
    output, report = whole
    assert report["images"] == {
        "source": 15,
        "corrupt": 1,
        "too_small": 1,
        "near_duplicates": 1,
        "stay": 12,
    }
    assert "05_empty.jpg: the file is empty" in report["corrupt"][0]
    # 48 x 64 -> 40 x 53 -> crops at 0, 16 and at 0, 16, 29
    assert report["records"] == 12 * 6 and report["shards"] == 4
    assert report["size"]["height"] == {"min": 24, "median": 24.0, "max": 24}
    assert json.loads((output / "report.json").read_text()) == report
    names = sorted(p.name for p in output.iterdir())
    assert names == [f"images-{i:09d}.array_record" for i in (0, 4, 8, 12)] + ["report.json"]
    assert report["bytes"] == sum(p.stat().st_size for p in output.glob("*.array_record"))

    source = sources.make_source(str(output / "*.array_record"), "train")
    assert len(source) == 72
    reduced = images.resize(photo(1), (40, 53), "bicubic")
    element = source[6 + 5]
    assert element["name"] == "01.png@16,29" and element["text"] == "number 1"
    np.testing.assert_array_equal(element["image"], reduced[16:40, 29:53])
    edges = cv2.Canny(cv2.cvtColor(reduced, cv2.COLOR_RGB2GRAY), 100, 200)
    np.testing.assert_array_equal(element["canny"][..., 0], edges[16:40, 29:53])


def test_workers_write_the_same_bytes(folder, whole, tmp_path):
    run(folder, tmp_path / "o", workers=2)
    assert contents(tmp_path / "o") == contents(whole[0])


def test_stopped_at_any_step_it_ends_with_the_same_bytes(folder, whole, tmp_path, monkeypatch):
    """Every file appears by a rename: stop before the first, before the second, ..."""
    replace, step = os.replace, 0
    while True:
        output, left = tmp_path / f"o{step}", step

        def stopping(*arguments):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            replace(*arguments)

        monkeypatch.setattr(os, "replace", stopping)
        try:
            run(folder, output)
            break
        except KeyboardInterrupt:
            monkeypatch.undo()
            assert not (output / "report.json").exists()
            run(folder, output)
        assert contents(output) == contents(whole[0]), step
        step += 1
    assert step > 4 + 4 + 2 * 4  # config, scans, shards and their results, report


def test_killed_with_workers_it_ends_with_the_same_bytes(folder, whole, tmp_path):
    output = tmp_path / "o"
    program = f"""
from codi_jax.data import sources
from codi_jax.data.prepare import prepare
from codi_jax.data.prepare_units import PrepareConfig
if __name__ == "__main__":
    prepare(sources.FolderSource({str(folder)!r}), {str(output)!r}, {CONFIG!r}, label="photos",
            workers=2)
"""
    script = tmp_path / "script.py"
    script.write_text(program)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(output.glob(".work/scan-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(folder, output)
    assert contents(output) == contents(whole[0])


def test_done_or_in_other_use(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_units, "scan", None)  # nothing is done again
    assert run(folder, whole[0]) == whole[1]
    with pytest.raises(UserError, match="holds another preparation"):
        run(folder, whole[0], PrepareConfig())
    monkeypatch.undo()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="is not empty"):
        run(folder, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    monkeypatch.setattr(prepare_units, "scan", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(folder, tmp_path / "o")
    with pytest.raises(UserError, match="unfinished preparation"):
        run(folder, tmp_path / "o", PrepareConfig())


def test_limits(folder, tmp_path):
    with pytest.raises(UserError, match=r"1 corrupt.*max_corrupt=0.*05_empty\.jpg"):
        run(folder, tmp_path / "a", max_corrupt=0)
    with pytest.raises(UserError, match="no image of photos stays.*'too_small': 14"):
        run(folder, tmp_path / "b", PrepareConfig(min_size=500))
    with pytest.raises(UserError, match="workers=-1"):
        run(folder, tmp_path / "c", workers=-1)


def test_whole_images_keep_their_pixels_and_columns(tmp_path):
    root = tmp_path / "in"
    images.save_image(root / "a.png", photo(0))
    images.save_image(root / "mask.png", photo(0)[..., 0])
    row = {"file_name": "a.png", "mask_file_name": "mask.png", "edit": "x"}
    (root / "metadata.jsonl").write_text(json.dumps(row))
    run(root, tmp_path / "o", PrepareConfig())
    element = sources.make_source(str(tmp_path / "o" / "*.array_record"), "train")[0]
    assert element["name"] == "a.png" and element["edit"] == "x"
    np.testing.assert_array_equal(element["image"], photo(0))
    np.testing.assert_array_equal(element["mask"], photo(0)[..., 0])
    run(root, tmp_path / "j", PrepareConfig(image_format="jpeg", resize=24))
    element = sources.make_source(str(tmp_path / "j" / "*.array_record"), "train")[0]
    np.testing.assert_array_equal(element["mask"], photo(0)[1::2, 1::2, 0])  # 48 x 64 halved
    exact = images.resize(photo(0), (24, 32), "bicubic").astype(int)
    assert np.abs(element["image"] - exact).mean() < 4
    images.save_image(root / "mask.png", photo(0)[:9, :, 0])
    with pytest.raises(UserError, match=r"column 'mask' has the size \(9, 64\)"):
        run(root, tmp_path / "p", PrepareConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 64, "resize": 32}, "resize=32 is below crop=64"),
        ({"stride": 3}, "stride=3 needs a crop"),
        ({"crop": -1}, "crop=-1 is negative"),
        ({"shard_images": 0}, "shard_images=0"),
        ({"near_duplicates": 16}, "near_duplicates=16"),
        ({"image_format": "gif"}, "image_format='gif'.*png, jpeg"),
    ],
)
def test_options_that_are_wrong(options, message):
    with pytest.raises(UserError, match=message):
        PrepareConfig(**options)


def test_contact_columns(whole, tmp_path):
    columns = contact_columns(whole[0], rows=3)
    assert list(columns) == ["image", "canny"]
    assert all(len(column) == 3 and column[0].shape == (24, 24, 3) for column in columns.values())
    root = tmp_path / "in"
    images.save_image(root / "a.png", photo(0, (300, 600)))
    run(root, tmp_path / "o", PrepareConfig())
    columns = contact_columns(tmp_path / "o", rows=2)
    assert len(columns) == 6 and columns["image 1"][0].shape == (64, 128, 3)

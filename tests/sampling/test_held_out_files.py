"""Results on held-out data as files: what is there is not made again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi_jax.data.images import load_image, save_image
from codi_jax.sampling.batches import Devices
from codi_jax.sampling.held_out_files import (
    batch_of_one,
    check_manifest,
    files,
    image_name,
    write_results,
)
from codi_jax.tasks.base import Task
from codi_jax.typing import UserError

MANIFEST = {"model": "ab", "seed": 0, "count": None}


class Copy(Task):
    """Reads the picture, and shows its negative beside; a half as bright one is only scored."""

    name = "copy"
    reads = ("image",)

    def inputs(self, batch: Any) -> dict[str, np.ndarray]:
        return {"negative": 255 - batch["image"]}

    def more_baselines(self, batch: Any) -> dict[str, np.ndarray]:
        return {"half": batch["image"] // 2}

    def finish(self, picture: np.ndarray, example: Any) -> np.ndarray:
        return np.maximum(picture, example["image"][:1, :1])


def examples(sizes: list[int]) -> list[dict[str, Any]]:
    return [
        {"image": np.full((side, side, 3), 10 * i, np.uint8), "prompt": f"p{i}"}
        for i, side in enumerate(sizes)
    ]


class Maker:
    """Pictures whose level is 100 + number of steps + index; it remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[int], list[str]]] = []

    def __call__(self, arrays: Any, indices: Any, prompts: Any, n: int) -> np.ndarray:
        numbers = [int(i) for i in indices]
        self.calls.append((n, numbers, [*prompts]))
        levels = np.array([100 + n + i for i in numbers], np.uint8)
        return np.broadcast_to(levels[:, None, None, None], arrays["image"].shape)


def write(folder: Path, sizes: list[int], steps: list[int], indices: Any = None) -> Maker:
    made, maker = examples(sizes), Maker()
    chosen = range(len(sizes)) if indices is None else indices
    write_results(folder, Copy(), made, chosen, steps, maker, Devices())
    return maker


def level(file: Path) -> int:
    image = load_image(file)
    assert (image == image[0, 0, 0]).all()
    return int(image[0, 0, 0])


def test_each_image_has_its_number_prompt_and_size(tmp_path: Path) -> None:
    maker = write(tmp_path, [4, 6, 4], [1, 2])
    for i, side in enumerate([4, 6, 4]):
        for n in (1, 2):
            assert level(tmp_path / str(n) / image_name(i)) == 100 + n + i
            assert load_image(tmp_path / str(n) / image_name(i)).shape == (side, side, 3)
        assert level(tmp_path / "reference" / image_name(i)) == 10 * i
        assert level(tmp_path / "negative" / image_name(i)) == 255 - 10 * i
        assert level(tmp_path / "half" / image_name(i)) == 5 * i
    for _, numbers, prompts in maker.calls:
        assert len(numbers) == 8 == len(prompts)  # of the tests' devices
        assert prompts == [f"p{i}" for i in numbers]


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    write(tmp_path, [4] * 3, [1])
    (tmp_path / "1" / image_name(1)).unlink()
    save_image(tmp_path / "1" / image_name(0), np.zeros((4, 4, 3), np.uint8))
    maker = write(tmp_path, [4] * 3, [1])
    assert [(n, set(numbers)) for n, numbers, _ in maker.calls] == [(1, {1})]
    assert level(tmp_path / "1" / image_name(0)) == 0
    assert not write(tmp_path, [4] * 3, [1]).calls
    further = write(tmp_path, [4] * 3, [1, 3])
    assert {n for n, _, _ in further.calls} == {3}


def test_what_stands_beside_is_made_again_without_the_results(tmp_path: Path) -> None:
    """As where a version with fewer baselines began."""
    write(tmp_path, [4] * 2, [1])
    (tmp_path / "half" / image_name(1)).unlink()
    assert not write(tmp_path, [4] * 2, [1]).calls
    assert level(tmp_path / "half" / image_name(1)) == 5


def test_a_share_leaves_the_rest_alone(tmp_path: Path) -> None:
    write(tmp_path, [4] * 4, [1], indices=range(1, 4, 2))
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == [image_name(1), image_name(3)]


def test_a_folder_belongs_to_one_evaluation(tmp_path: Path) -> None:
    check_manifest(tmp_path, MANIFEST)
    check_manifest(tmp_path, dict(MANIFEST))
    with pytest.raises(UserError, match=r"another evaluation: seed \(0 there, 1 now\)\. Use an"):
        check_manifest(tmp_path, {**MANIFEST, "seed": 1})
    with pytest.raises(UserError, match=r"crop \(None there, 32 now\)"):
        check_manifest(tmp_path, {**MANIFEST, "crop": 32})


def test_columns_are_files_in_order(tmp_path: Path) -> None:
    write(tmp_path, [4] * 3, [1])
    found = files(tmp_path, "reference", 3)
    assert [int(image[0, 0, 0]) for image in found] == [0, 10, 20]


def test_a_batch_of_one() -> None:
    batch = batch_of_one({"image": np.ones((2, 2, 3)), "text": "a cat", "number": np.float32(3)})
    assert batch["image"].shape == (1, 2, 2, 3) and batch["text"] == ["a cat"]
    np.testing.assert_array_equal(batch["number"], [3.0])

"""What the command `prepare` is asked for reaches the preparation."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi_jax.data import preparation
from codi_jax.data.images import save_image
from codi_jax.data.preparation import Preparation, prepare_source
from codi_jax.data.prepare_units import PrepareConfig
from codi_jax.typing import UserError

CONFIG = PrepareConfig(near_duplicates=-1)


def photos(folder: Path, count: int, start: int = 0) -> None:
    for i in range(start, start + count):
        image = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        save_image(folder / f"{i}.png", image)


@pytest.mark.parametrize(
    "given",
    [{}, {"source": "PHOTOS"}, {"output": Path("out")}, {"source": "", "output": Path("out")}],
)
def test_a_source_and_an_output_are_needed(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"give --source=PHOTOS and --output=DIR"):
        Preparation(**given).check()


def test_both_are_enough() -> None:
    Preparation(source="PHOTOS", output=Path("out")).check()


def test_the_split_that_is_named_is_prepared(tmp_path: Path) -> None:
    photos(tmp_path / "in" / "train", 3)
    photos(tmp_path / "in" / "eval", 2, start=10)
    made = {}
    for split in ("train", "eval"):
        asked = Preparation(source=str(tmp_path / "in"), split=split, output=tmp_path / split)
        made[split] = prepare_source(asked, CONFIG, None)
    assert {split: report["records"] for split, report in made.items()} == {"train": 3, "eval": 2}
    for split in made:
        assert [*(tmp_path / split).glob("*.array_record")]


def test_every_setting_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photos(tmp_path / "in", 1)
    calls: list[Any] = []
    monkeypatch.setattr(preparation, "prepare", lambda *args, **kw: calls.append((args, kw)) or {})
    asked = Preparation(
        source=str(tmp_path / "in"), output=tmp_path / "o", workers=3, max_corrupt=2
    )

    def encode(samples: Any) -> Any:
        return samples

    prepare_source(asked, CONFIG, encode)
    ((source, output, config), options) = calls[0]
    assert len(source) == 1 and output == tmp_path / "o" and config is CONFIG
    assert options == {
        "label": f"{tmp_path / 'in'} (train)",
        "workers": 3,
        "beam": "",
        "max_corrupt": 2,
        "encode": encode,
    }


def test_corrupt_images_are_left_out_up_to_a_limit(tmp_path: Path) -> None:
    photos(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    asked = Preparation(source=str(tmp_path / "in"), output=tmp_path / "a")
    assert prepare_source(asked, CONFIG, None)["images"]["corrupt"] == 1
    strict = dataclasses.replace(asked, output=tmp_path / "b", max_corrupt=0)
    with pytest.raises(UserError, match=r"1 corrupt.*max_corrupt=0"):
        prepare_source(strict, CONFIG, None)


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    asked = Preparation(source=str(tmp_path / "nowhere"), output=tmp_path / "o")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare_source(asked, CONFIG, None)
    assert not (tmp_path / "o").exists()

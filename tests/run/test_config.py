"""Where a config file is found, and what is said when it is not."""

from pathlib import Path

import pytest

from codi_jax.run.config import _with_found_config, find_config, packaged_configs
from codi_jax.typing import UserError


def test_the_users_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = find_config("configs/sr.py:tiny")
    assert packaged.endswith("configs/sr.py:tiny") and Path(packaged.partition(":")[0]).is_file()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sr.py").write_text("")
    assert find_config("configs/sr.py:tiny") == "configs/sr.py:tiny"


def test_both_ways_to_write_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_config("configs/sr.py")
    arguments = ["x", "--config", "configs/sr.py", "--workdir=w", "--config.steps=3"]
    assert _with_found_config(arguments) == ["x", "--config", found, "--workdir=w", arguments[4]]
    assert _with_found_config(["x", "--config=configs/sr.py"]) == ["x", f"--config={found}"]


@pytest.mark.parametrize("name", ["sr", "configs/nope.py", "elsewhere/sr.py", "nope.py:tiny"])
def test_a_missing_file_is_named_with_what_there_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"does not exist.*configs/sr\.py"):
        find_config(name)


def test_configs_travel() -> None:
    assert any((folder / "base.py").is_file() for folder in packaged_configs())

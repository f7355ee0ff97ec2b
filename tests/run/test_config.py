"""Where a config file is found, and what is said when it is not."""

from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from codi_jax.cli.app import _in_one_line
from codi_jax.run.config import _with_found_config, find_config, packaged_configs
from codi_jax.run.ranges import check_ranges
from codi_jax.typing import UserError


def test_the_users_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packaged = find_config("configs/sr.py:tiny")
    assert packaged.endswith("configs/sr.py:tiny") and Path(packaged.partition(":")[0]).is_file()
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "sr.py"
    own.write_text("def get_config(variant): ...")
    assert find_config("configs/sr.py:tiny") == "configs/sr.py:tiny"
    own.write_text("x = 1")
    with pytest.raises(UserError, match=r"configs/sr\.py has no function get_config"):
        find_config("configs/sr.py:tiny")


def test_both_ways_to_write_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_config("configs/sr.py")
    arguments = ["x", "--config", "configs/sr.py", "--workdir=w", "--config.steps=3"]
    assert _with_found_config(arguments) == ["x", "--config", found, "--workdir=w", arguments[4]]
    assert _with_found_config(["x", "--config=configs/sr.py"]) == ["x", f"--config={found}"]


@pytest.mark.parametrize(
    "name", ["sr", "configs/nope.py", "elsewhere/sr.py", "nope.py:tiny", "configs/base.py"]
)
def test_a_missing_file_is_named_with_what_there_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"does not exist.*configs/sr\.py"):
        find_config(name)


CONFIG = "from ml_collections import ConfigDict\ndef get_config(variant='default'):\n    "


# ml_collections loads the file by a deprecated method.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{CONFIG}raise ValueError('unknown variant: choose a or b')", "unknown variant: choose"),
        (f"{CONFIG}return ConfigDict({{'a': missing}})", "name 'missing' is not"),
        ("import no_such_module\ndef get_config(): ...", "No module named 'no_such_module', which"),
        ("def get_config(:", "line 1: invalid syntax; correct the file"),
        ("def get_config(_): raise KeyError('steps')", "steps"),
        (f"{CONFIG}return ConfigDict({{'a': 3}})", "a"),
    ],
)
def test_a_config_that_fails_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 (of any kind, by any config)
        values(["program", f"--config={file}:nope", "--config.a=no number"])
    line = _in_one_line(caught.value)
    assert said in line and "\n" not in line and "Traceback" not in line


def test_what_is_no_config_is_said() -> None:
    with pytest.raises(UserError, match=r"get_config\(\) gives a int, not a ConfigDict"):
        check_ranges(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"config\.seed is missing: start your config from"):
        check_ranges(ConfigDict({"steps": 3}))


def test_configs_travel() -> None:
    assert any((folder / "base.py").is_file() for folder in packaged_configs())

"""Every config says how it is run, on what, how long, and what to expect; its names exist."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from configs.methods import METHODS
from configs.shared import CHECKPOINTS, VARIANTS

FOLDER = Path(__file__).parents[2] / "configs"
#: Parts of configs.
SHARED = {"base", "shared", "methods"}
CONFIGS = sorted({file.stem for file in FOLDER.glob("*.py")} - SHARED)


def module(name: str) -> Any:
    return importlib.import_module(f"configs.{name}")


def section(text: str, name: str) -> str:
    """What follows ``name:`` up to the next such word at the beginning of a line."""
    found = re.search(rf"^{name}:\s+(.*?)(?=^\w+:|\n\n|\Z)", text, re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def test_all_configs_are_found() -> None:
    assert {"sr", "inpaint", "canny", "depth", "edit", "prior", "autoencoder"} <= set(CONFIGS)
    for name in SHARED:
        assert not hasattr(module(name), "get_config")


@pytest.mark.parametrize("name", CONFIGS)
def test_command_hardware_and_time_are_documented(name: str) -> None:
    text = module(name).__doc__
    command = section(text, "Command")
    entry = "study" if name == "study" else "main"
    assert command.startswith(f"python -m codi_jax.{entry} --config=configs/{name}.py ")
    assert f"--workdir=runs/{name}" in command
    assert "CPU" in section(text, "Hardware")
    assert re.search(r"minutes|hour|README", section(text, "Time"))
    assert section(text, "Expect") or section(text, "Writes")


@pytest.mark.parametrize("name", CONFIGS)
def test_the_flags_of_the_documented_commands_exist(name: str) -> None:
    config = module(name).get_config()
    for key, value in re.findall(r"--config\.([\w.]+)=(\S*)", module(name).__doc__):
        node = config
        *path, last = key.split(".")
        for part in path:
            node = node[part]
        assert last in node or path == ["task_options"], f"{key}={value}"


@pytest.mark.parametrize("name", CONFIGS)
def test_an_unknown_variant_is_named_with_those_that_exist(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown variant 'tinny'.*tiny"):
        module(name).get_config("tinny")


@pytest.mark.parametrize("name", ["sr", "inpaint", "canny", "depth", "edit"])
def test_every_documented_variant_exists(name: str) -> None:
    text = module(name).__doc__
    listed = re.search(r"^Variants:(.*?)(?=\n\n|\n\S)", text, re.M | re.S)
    assert listed
    names = [line.split()[0] for line in listed[1].splitlines()]
    assert {*VARIANTS, "METHOD"} <= set(names)
    for variant in (*(n for n in names if n != "METHOD"), *METHODS):
        assert module(name).get_config(variant).task == name


@pytest.mark.parametrize("variant", CHECKPOINTS)
def test_full_size_is_full_size_after_any_method(variant: str) -> None:
    for method in ("codi", "pe_codi", "fast_codi", "finetune"):
        config = module("sr").get_config(f"{variant},{method}")
        assert config.model.pretrained == CHECKPOINTS[variant]
        assert (config.data.size, config.eval.size, config.model.remat) == (512, 512, "blocks")


def test_methods_are_described() -> None:
    text = module("methods").__doc__
    for name in METHODS:
        assert re.search(rf"(^|[ ,`]){name}[ ,`\n]", text, re.M), name


def test_a_config_is_a_new_one_each_time() -> None:
    first, second = (module("sr").get_config("tiny") for _ in range(2))
    first.model.unet.layers_per_block, first.data.size = 7, 8
    assert (second.model.unet.layers_per_block, second.data.size) == (1, 32)

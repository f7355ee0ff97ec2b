"""The page of two tiny models, served by this process."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from codi_jax.sampling.page.choices import Choice
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.page.server import free_port, launched
from codi_jax.sampling.sampler import Sampler
from configs import inpaint
from tests.smallest import shrunk, smallest


@pytest.fixture(scope="session")
def choices(tiny_model: Callable) -> dict[str, Choice]:
    """One that enlarges, and one that fills; one tile for all pictures, and so few programs."""
    configs = {"runs/tiny": smallest(), "runs/fill": shrunk(inpaint.get_config("tiny,codi"))}
    return {
        name: Choice(name=name, sampler=Sampler(tiny_model(config), tile=64))
        for name, config in configs.items()
    }


class Served(NamedTuple):
    address: str
    folder: Path


@pytest.fixture(scope="session")
def served(
    choices: dict[str, Choice], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    options = PageOptions(port=free_port("127.0.0.1", 0), max_upload=1, max_waiting=8)
    folder, before = tmp_path_factory.mktemp("page"), dict(os.environ)
    with launched(choices, options, options.port, folder) as address:
        yield Served(address, folder)
    os.environ.clear()
    os.environ.update(before)

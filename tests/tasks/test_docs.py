"""The worked example of docs/tasks.md is run as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np

from codi_jax.data.sources import make_source
from codi_jax.models.autoencoder import AutoencoderKL
from codi_jax.run.config import build_task
from codi_jax.run.data import transforms

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_worked_example(tmp_path, monkeypatch, tiny_model):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (code,) = [block for block in blocks if "class Colourise(Task)" in block]
    (tmp_path / "colourise.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (config_code,) = [block for block in blocks if "def get_config" in block]
    space = {}
    exec(config_code, space)
    config = space["get_config"]("tiny")
    task = build_task(config)
    element = make_source("skimage", "eval")[0]
    rng = np.random.default_rng(0)
    for transform in transforms(config, task, 16, train=True):
        element = (
            transform.random_map(element, rng)
            if hasattr(transform, "random_map")
            else transform.map(element)
        )
    batch = {name: element[name][None] for name in task.arrays}
    model = tiny_model(config)
    assert model.task == "colourise:Colourise"
    vae = AutoencoderKL(model.vae)
    cond = jax.jit(lambda p, b: task.condition(vae, p, b))(model.params["vae"], batch)
    assert cond["image"].shape == (1, 16, 16, 3) and cond["latents"].shape == (1, 8, 8, 4)
    np.testing.assert_array_equal(task.from_user(batch["image"][0])["grey"], batch["grey"][0])
    assert task.score(batch["image"], batch) == {"colour_error": 0.0}
    assert task.inputs(batch)["grey"].shape == (1, 16, 16, 3)

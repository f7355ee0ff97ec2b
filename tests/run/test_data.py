"""A run's data: charts among its training pictures alone, prompts, and nothing that is not used."""

from typing import Any

import numpy as np
import pytest

from codi_jax.data.charts import ReplaceByChart
from codi_jax.data.transforms import ENCODED, Drop, FillPrompt, Keep
from codi_jax.run.config import build_task
from codi_jax.run.data import first_pictures, open_data, transforms
from codi_jax.typing import UserError
from configs import autoencoder, canny, depth, edit, inpaint, sr
from tests.smallest import smallest


def looks_drawn(picture: np.ndarray) -> bool:
    """Whether it may be a chart of few colours; a photo and a gradient have many."""
    return len(np.unique(picture.reshape(-1, 3), axis=0)) <= 64


def kinds(steps: Any) -> list[type]:
    return [type(step) for step in steps]


def made(config: Any, size: int = 32, *, train: bool = False) -> Any:
    return transforms(config, build_task(config), size, train=train)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 2), (1.0, 12, 24)])
def test_the_stream_has_charts_where_the_config_asks_for_them(
    share: float, low: int, high: int
) -> None:
    config = autoencoder.get_config("tiny")
    assert config.data.chart_share == 0.1
    config.batch_size, config.data.chart_share, config.eval.count = 24, share, 8
    task = build_task(config)
    stream, shown = open_data(config, task)
    batch = next(stream)["image"]
    stream.close()
    assert batch.shape == (24, 32, 32, 3)
    assert low <= sum(map(looks_drawn, batch)) <= high
    # Held-out pictures are none, nor what a linear start is made from.
    for pictures in (shown["image"], first_pictures(config, task, 24)):
        assert sum(map(looks_drawn, pictures)) <= 2
    assert config.data.chart_share == share


def test_the_first_pictures_are_the_first_crops_of_the_stream() -> None:
    config = autoencoder.get_config("tiny")
    config.data.chart_share, config.batch_size, config.seed = 0.0, 4, 5
    task = build_task(config)
    stream, _ = open_data(config, task)
    batch = next(stream)["image"]
    stream.close()
    np.testing.assert_array_equal(first_pictures(config, task, 4), batch)
    np.testing.assert_array_equal(first_pictures(config, task, 6)[:4], batch)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_checked(share: float) -> None:
    config = autoencoder.get_config("tiny")
    config.data.chart_share = share
    with pytest.raises(UserError, match=f"chart_share={share}: give a share"):
        made(config, train=True)
    made(config)  # of held-out pictures there is none


def test_decoded_pictures_are_kept_where_the_config_says(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = tmp_path / "codi_jax" / "decoded"
    batches = []
    for cache, wanted in (("off", 0), ("auto", 0), ("disk", 7), ("disk", 7)):
        config = smallest(data__cache=cache, eval__count=1)
        stream, _ = open_data(config, build_task(config))
        batches.append([next(stream) for _ in range(2)][1])
        stream.close()
        assert len([*kept.glob("*/0/*")]) == wanted, cache
    for batch in batches[1:]:
        for name, values in batch.items():
            np.testing.assert_array_equal(values, batches[0][name], err_msg=name)


def test_charts_have_no_maps() -> None:
    config = depth.get_config("tiny")
    config.data.chart_share = 0.5
    with pytest.raises(UserError, match="the task depth reads image, depth and charts are"):
        made(config, train=True)


def test_the_order_of_the_steps() -> None:
    config = smallest(data__chart_share=0.5, model__prompt="{text}")
    steps = kinds(made(config, train=True))
    assert steps[0] is Drop and steps[1] is ReplaceByChart
    assert steps[-2:] == [FillPrompt, Keep]
    assert ReplaceByChart not in kinds(made(config))


def test_a_prompt_for_all_pictures_needs_no_step() -> None:
    assert FillPrompt not in kinds(made(smallest(model__prompt="a cat"), train=True))


def test_prompts_are_dropped_in_training_alone() -> None:
    config = smallest(model__prompt="a {text}", data__prompt_dropout=1.0)
    element = {"text": "cat", "prompt": "", "image": np.zeros((4, 4, 3), np.uint8)}
    prompts = []
    for train in (True, False):
        (fill,) = (step for step in made(config, train=train) if isinstance(step, FillPrompt))
        prompts.append(fill.random_map(dict(element), np.random.default_rng(0))["prompt"])
    assert prompts == ["", "a cat"]


def test_encoded_columns_are_for_training_that_asks_for_them() -> None:
    config = smallest(data__encoded=True)
    assert Drop not in kinds(made(config, train=True)) and Drop in kinds(made(config))
    assert Drop in kinds(made(smallest(), train=True))
    keep = made(config, train=True)[-1]
    assert {*ENCODED} <= {*keep.names}
    assert not {*ENCODED} & {*made(config)[-1].names}


@pytest.mark.parametrize("module", [sr, inpaint, canny, depth, edit])
def test_batches_have_what_the_task_says(module: Any) -> None:
    """Names, shapes and dtypes, of the training stream and of the held-out batch."""
    config = module.get_config("tiny")
    config.batch_size, config.eval.count, config.eval.size = 2, 1, 48
    task = build_task(config)
    stream, shown = open_data(config, task)
    batch = next(stream)
    stream.close()
    assert set(task.shapes(32)) == set(task.arrays)
    for found, size, count in ((batch, 32, 2), (shown, 48, 1)):
        for name, (shape, dtype) in task.shapes(size).items():
            assert found[name].shape == (count, *shape), name
            assert found[name].dtype == dtype, name


def test_the_held_out_batch_is_fixed_and_of_its_own_source() -> None:
    config = smallest(eval__count=3)
    task = build_task(config)
    batches = []
    for seed in (0, 0, 1):
        config.seed = seed
        stream, shown = open_data(config, task)
        stream.close()
        batches.append(shown)
    np.testing.assert_array_equal(batches[0]["image"], batches[1]["image"])
    assert not np.array_equal(batches[0]["lr"], batches[2]["lr"])


@pytest.mark.parametrize(("key", "value"), [("source", "nowhere"), ("eval_source", "elsewhere")])
def test_a_source_that_does_not_exist_is_named(key: str, value: str) -> None:
    config = smallest(**{f"data__{key}": value})
    with pytest.raises(UserError, match=f"{value}"):
        open_data(config, build_task(config))

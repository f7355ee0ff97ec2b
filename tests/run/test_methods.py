"""What a step of CoDi costs, whom the teachers are, and options that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.checkpoint.directory import write_architecture
from codi_jax.run.config import build_task
from codi_jax.run.methods import check_guidance, make_loss, vae_parts
from codi_jax.run.plan import Plan, plan
from codi_jax.train.objectives import TEACHER, null_condition
from codi_jax.typing import UserError
from configs import prior, sr
from configs.methods import apply_method
from tests.smallest import smallest

#: Methods that start from the model of an earlier run.
SECOND = ("cm", "cm_frozen", "guided", "progressive")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture that an earlier run would leave; a plan reads no weights."""
    path = tmp_path_factory.mktemp("first") / "model"
    write_architecture(path, plan(tiny("finetune")).model)
    return path


@pytest.fixture
def planned(first: Path) -> Callable[[str], Plan]:
    def make(name: str, **changes: Any) -> Plan:
        config = tiny(name)
        if name.split(",")[0] in SECOND:
            config.model.pretrained = str(first)
        config.loss.update(changes)
        return plan(config)

    return make


def tiny(name: str) -> ConfigDict:
    """Convolutions only: tracing is what these tests cost."""
    config = sr.get_config(f"tiny,{name}")
    config.model.unet.down_block_types = ("DownBlock2D",) * 2
    config.model.unet.up_block_types = ("UpBlock2D",) * 2
    config.model.unet.mid_block_type = "UNetMidBlock2D"
    return config


def arguments(made: Plan) -> tuple[Any, ...]:
    return made.state, made.frozen, made.batch, jax.eval_shape(lambda: made.key)


def traced(made: Plan) -> tuple[Any, dict[str, Any]]:
    return jax.eval_shape(made.step_fn, *arguments(made))


def flops(made: Plan) -> float:
    return jax.jit(made.step_fn).lower(*arguments(made)).cost_analysis()["flops"]


@pytest.mark.slow
def test_a_codi_step_costs_at_most_1_4_fine_tuning_steps(planned: Callable[..., Plan]) -> None:
    assert 1.0 < flops(planned("codi")) / flops(planned("finetune")) <= 1.4


def test_what_is_frozen_as_the_teacher(planned: Callable[..., Plan]) -> None:
    """Only what the run trains has a second copy."""
    parts = {name: planned(name).frozen.get(TEACHER, {}) for name in ("cm", "cm_frozen", "codi")}
    assert set(parts["cm"]) == {"unet", "adapter"} and set(parts["cm_frozen"]) == {"adapter"}
    assert parts["codi"] == {}
    assert set(planned("codi", predictor="ddim").frozen[TEACHER]) == {"unet"}
    tree = {"unet": {"a": 1, "b": 2}, "adapter": {"c": 3}}
    assert trees.overlay(tree, {"unet": {"b": 5}}) == {
        "unet": {"a": 1, "b": 5},
        "adapter": {"c": 3},
    }


def test_the_step_of_progressive_distillation_has_its_teacher_among_the_averages(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    assert set(planned("progressive").state.ema) == {"eval", TEACHER}
    begun = prior.get_config("tiny")
    begun.batch_size, begun.model.vae = 8, tiny("codi").model.vae
    begun.model.unet.in_channels = begun.model.unet.out_channels = 4
    write_architecture(tmp_path, plan(begun).model)
    config = prior.get_config("tiny,progressive")
    assert config.method == "progressive" and config.task == "prior"
    config.model.pretrained = str(tmp_path)
    config.batch_size, config.steps, config.data.size = 8, 10, 32
    assert traced(plan(config))[1]["loss"].shape == ()


def test_progressive_after_guided_keeps_the_scales() -> None:
    config = sr.get_config("tiny,guided,progressive")
    assert config.loss.guidance_range == (1.0, 4.0) and config.model.time_cond_proj_dim == 256


def test_variants_and_options_that_do_not_exist() -> None:
    config = sr.get_config("sd15,pe_codi")
    assert config.model.trainable == "adapter/.*" and config.loss.dt == 1
    assert sr.get_config("progressive").loss.steps_per_stage == 240 // 5
    with pytest.raises(ValueError, match="unknown variant 'pe': .*pe_codi"):
        sr.get_config("pe")
    with pytest.raises(ValueError, match="unknown method 'gd'.*progressive"):
        apply_method(config, "gd")
    model, task = plan(tiny("codi")).model, build_task(config)
    with pytest.raises(UserError, match="'codi' is unknown: choose one of finetune"):
        make_loss(build_task(prior.get_config()), "codi", {}, model)
    with pytest.raises(UserError, match="'kind'"):
        make_loss(task, "consistency", {"kind": 1}, model)
    with pytest.raises(UserError, match="set it to RUN/model"):
        plan(tiny("cm"))
    with pytest.raises(UserError, match=r"'consistency' distils.*'prior' is none"):
        plan(sr.get_config("cm"))
    guided, plain = (make_loss(task, name, {}, model) for name in ("guided", "finetune"))
    with pytest.raises(UserError, match="time_cond_proj_dim=256"):
        check_guidance(guided, False)
    with pytest.raises(UserError, match=r"set config\.loss\.guidance_range"):
        check_guidance(plain, True)


def test_lpips_asks_for_its_weights_and_for_pictures_of_its_size(tmp_path: Path) -> None:
    config = tiny("codi")
    config.loss.data_space, config.model.lpips_weights = "lpips", str(tmp_path)
    with pytest.raises(UserError, match=r"vgg16.*safetensors is absent"):
        plan(config)
    config.data.size = 16
    with pytest.raises(UserError, match="data.size=16"):
        plan(config)


def test_the_data_term_by_lpips_has_a_step(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codi_jax.run.plan.find_weights", lambda network, folder: folder)
    assert traced(planned("codi", data_space="lpips"))[1]["data"].shape == ()


def test_null_condition() -> None:
    cond = {"latents": jnp.ones((2, 3)), "text": jnp.ones((2, 4)), "guidance_scale": jnp.ones(2)}
    null = null_condition(cond, {"text": jnp.zeros((2, 4))})
    assert float(null["latents"].sum()) == 6 and float(null["text"].sum()) == 0
    null = null_condition(cond, {})
    assert float(null["latents"].sum()) == 0
    np.testing.assert_array_equal(null["guidance_scale"], cond["guidance_scale"])


@pytest.mark.parametrize(
    ("vae_batch", "accumulation", "parts"), [(0, 1, 1), (1, 1, 6), (4, 1, 2), (5, 1, 2), (3, 2, 1)]
)
def test_the_autoencoder_works_in_equal_parts(
    vae_batch: int, accumulation: int, parts: int
) -> None:
    """Of 12 pictures on two devices."""
    config = smallest(batch_size=12, model__vae_batch=vae_batch, accumulation=accumulation)
    assert vae_parts(config, devices=2) == parts

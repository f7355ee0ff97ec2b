"""Every method, as a config value, gives a step; what CoDi's costs; whom the teachers are."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from codi_jax import trees
from codi_jax.builder import build_loss, build_lpips, build_pipeline, split_params
from codi_jax.checkpoint.pipeline import with_guidance_input
from codi_jax.methods import check_guidance, ema_decays, frozen_teacher, make_loss, make_objective
from codi_jax.models.lpips import LPIPS
from codi_jax.train.objectives import TEACHER, null_condition
from codi_jax.train.optim import OptimConfig, make_optimizer
from codi_jax.train.state import create_state
from codi_jax.train.step import make_step
from codi_jax.typing import UserError
from configs import prior, sr
from configs.methods import METHODS, apply_method


class Abstract(NamedTuple):
    """A step and the shapes of its arguments: nothing is computed."""

    step: Any
    state: Any
    frozen: Any
    batch: Any
    key: Any


def abstract(config: ConfigDict) -> Abstract:
    """What ``build_run`` would build; a model to start from is not asked for."""
    base = build_pipeline(config, jnp.float32)
    loss = make_loss(config.task, config.method, config.loss.to_dict(), base)
    averages = ema_decays(dict(config.ema), loss)
    optimizer = make_optimizer(OptimConfig(**config.optim), config.steps)
    built = []

    def start(key: jax.Array) -> Any:
        pipeline = type(base)(**{**vars(base), "params": base.init(key)})
        if config.model.time_cond_proj_dim:
            pipeline = with_guidance_input(pipeline, config.model.time_cond_proj_dim)
        built.append(pipeline)
        trainable, frozen = split_params(config, pipeline.params)
        frozen |= frozen_teacher(loss, trainable)
        return create_state(trainable, optimizer, tuple(averages)), frozen

    key = jax.eval_shape(lambda: jax.random.key(0))
    state, frozen = jax.eval_shape(start, key)
    target = TEACHER if TEACHER in averages else "target"
    lpips = LPIPS("vgg") if loss.needs.perceptual else None
    if lpips:
        pictures = jnp.zeros((1, 32, 32, 3))
        shapes = jax.eval_shape(lambda k: lpips.init(k, pictures, pictures), key)
        frozen["lpips"] = shapes["params"]
    objective = make_objective(loss, built[0], jnp.float32, {}, {}, lpips)
    step = make_step(objective, optimizer, averages, target=target)
    size, scale = config.data.size, config.data.scale
    pictures = {"image": size, "lr": size // scale} if config.task == "sr" else {"image": size}
    batch = {
        name: jax.ShapeDtypeStruct((config.batch_size, side, side, 3), jnp.uint8)
        for name, side in pictures.items()
    }
    return Abstract(step, state, frozen, batch, key)


@pytest.fixture(autouse=True)
def standard_promotion() -> Any:
    with jax.numpy_dtype_promotion("standard"):
        yield


def tiny(name: str) -> ConfigDict:
    """Convolutions only: tracing is what these tests cost."""
    config = sr.get_config(f"tiny,{name}")
    config.batch_size = 2
    config.model.unet.down_block_types = ("DownBlock2D",) * 2
    config.model.unet.up_block_types = ("UpBlock2D",) * 2
    config.model.unet.mid_block_type = "UNetMidBlock2D"
    return config


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_step_that_keeps_the_state(name: str) -> None:
    step, *arguments = abstract(tiny(name))
    state, metrics = jax.eval_shape(step, *arguments)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), arguments[0])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == shapes
    assert metrics["loss"].shape == ()


def flops(config: ConfigDict) -> float:
    step, *arguments = abstract(config)
    return jax.jit(step).lower(*arguments).cost_analysis()["flops"]


def test_a_codi_step_costs_at_most_1_4_fine_tuning_steps() -> None:
    assert 1.0 < flops(tiny("codi")) / flops(tiny("finetune")) <= 1.4


def test_what_is_frozen_as_the_teacher() -> None:
    """Only what the run trains has a second copy."""
    parts = {}
    for name in ("cm", "cm_frozen", "codi"):
        parts[name] = abstract(tiny(name)).frozen.get(TEACHER, {})
    assert set(parts["cm"]) == {"unet", "adapter"} and set(parts["cm_frozen"]) == {"adapter"}
    assert parts["codi"] == {}
    config = tiny("codi")
    config.loss.predictor = "ddim"
    assert set(abstract(config).frozen[TEACHER]) == {"unet"}
    tree = {"unet": {"a": 1, "b": 2}, "adapter": {"c": 3}}
    assert trees.overlay(tree, {"unet": {"b": 5}}) == {
        "unet": {"a": 1, "b": 5},
        "adapter": {"c": 3},
    }


def test_the_step_of_progressive_distillation_has_its_teacher_among_the_averages() -> None:
    assert set(abstract(tiny("progressive")).state.ema) == {"eval", TEACHER}
    config = prior.get_config("tiny,progressive")
    config.model.unet.in_channels = config.model.unet.out_channels = 4
    config.model.vae = tiny("codi").model.vae
    assert config.method == "progressive" and config.task == "prior"
    config.batch_size, config.steps = 2, 10
    step, *arguments = abstract(config)
    assert jax.eval_shape(step, *arguments)[1]["loss"].shape == ()


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
    pipeline = build_pipeline(tiny("cm"), jnp.float32)
    with pytest.raises(UserError, match="'codi' is unknown: choose one of finetune"):
        make_loss("prior", "codi", {}, pipeline)
    with pytest.raises(UserError, match="'kind'"):
        make_loss("sr", "consistency", {"kind": 1}, pipeline)
    with pytest.raises(UserError, match="set it to RUN/model"):
        build_loss(tiny("cm"), pipeline)
    with pytest.raises(UserError, match=r"'consistency' distils.*'prior' is none"):
        config = sr.get_config("cm")
        build_loss(config, build_pipeline(config, jnp.float32))
    guided, plain = (make_loss("sr", name, {}, pipeline) for name in ("guided", "finetune"))
    with pytest.raises(UserError, match="time_cond_proj_dim=256"):
        check_guidance(guided, False)
    with pytest.raises(UserError, match=r"set config\.loss\.guidance_range"):
        check_guidance(plain, True)


def test_lpips_asks_for_its_weights_and_for_pictures_of_its_size(tmp_path: Path) -> None:
    config = tiny("codi")
    config.loss.data_space, config.model.lpips_weights = "lpips", str(tmp_path)
    loss = build_loss(config, build_pipeline(config, jnp.float32))
    with pytest.raises(UserError, match=r"vgg16.*safetensors is absent"):
        build_lpips(config, loss)
    config.data.size = 16
    with pytest.raises(UserError, match="data.size=16"):
        build_lpips(config, loss)


def test_the_data_term_by_lpips_has_a_step() -> None:
    config = tiny("codi")
    config.loss.data_space = "lpips"
    step, *arguments = abstract(config)
    assert jax.eval_shape(step, *arguments)[1]["data"].shape == ()


def test_null_condition() -> None:
    cond = {"latents": jnp.ones((2, 3)), "text": jnp.ones((2, 4)), "guidance_scale": jnp.ones(2)}
    null = null_condition(cond, {"text": jnp.zeros((2, 4))})
    assert float(null["latents"].sum()) == 6 and float(null["text"].sum()) == 0
    null = null_condition(cond, {})
    assert float(null["latents"].sum()) == 0
    np.testing.assert_array_equal(null["guidance_scale"], cond["guidance_scale"])

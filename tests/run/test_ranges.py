"""Each value of a config that cannot run is refused by the plan, which writes nothing."""

import math
import re

import pytest

from codi_jax.run.plan import plan
from codi_jax.run.ranges import check_ranges
from codi_jax.typing import UserError
from configs import autoencoder, canny, edit, inpaint, sr

WRONG = [
    *(("steps", n) for n in (0, -5)),
    *(("batch_size", n) for n in (0, -8)),
    *(("accumulation", n) for n in (0, -1, 3)),
    *(("log_every", n) for n in (0, -1)),
    *(("seed", n) for n in (-1, 2**32)),
    ("dtype", "float64"),
    ("model.init", "zero"),
    ("model.adapter", "lora"),
    ("model.prediction_type", "velocity"),
    ("model.vae_init", "svd"),
    ("model.time_cond_proj_dim", -1),
    ("model.vae.block_out_channels", ()),
    ("model.vae.block_out_channels", (0, 16)),
    ("model.vae.norm_num_groups", 0),
    ("model.vae.norm_num_groups", 3),
    ("model.vae.scaling_factor", 0.0),
    ("model.unet.block_out_channels", ()),
    ("model.unet.block_out_channels", (0, 32)),
    ("model.unet.block_out_channels", (16, -32)),
    ("model.unet.attention_head_dim", 0),
    ("model.unet.layers_per_block", -1),
    ("model.scheduler.num_train_timesteps", 0),
    ("model.scheduler.num_train_timesteps", 2**40),
    ("model.scheduler.beta_start", -0.1),
    ("model.scheduler.beta_schedule", "sqrt"),
    *(("optim.learning_rate", x) for x in (math.nan, -1.0, 0.0, math.inf)),
    ("optim.warmup_steps", -1),
    ("optim.decay", "linear"),
    ("optim.weight_decay", -0.1),
    *(("optim.b1", x) for x in (2.0, 1.0, -0.1, math.nan)),
    ("optim.b2", 1.5),
    *(("optim.clip_norm", x) for x in (0.0, -1.0, math.nan)),
    ("optim.mu_multiplier", -1.0),
    *(("ema.eval", x) for x in (2.0, 1.0, -0.1, math.nan)),
    ("ema.target", -1.0),
    *(("data.size", n) for n in (33, 0, 2, -32)),
    *(("data.scale", n) for n in (0, -4, 3)),
    ("data.degradation", "jpeg"),
    ("data.clean_share", 1.5),
    ("data.chart_share", -0.5),
    ("data.prompt_dropout", 2.0),
    ("data.num_workers", -1),
    ("data.max_corrupt", -1),
    *(("data.cache", x) for x in ("", "ram", True)),
    *(("data.cache_gb", x) for x in (-1.0, math.nan, math.inf)),
    *(("eval.every", n) for n in (0, -1)),
    ("eval.count", 0),
    *(("eval.size", n) for n in (0, 31, -32)),
    *(("eval.steps", x) for x in ((), (0,), (1, -4), (2000,), (1.5,))),
    ("checkpoint.every", 0),
    ("checkpoint.keep", 0),
    ("mesh.data", 0),
    ("mesh.fsdp", -2),
    ("loss.dt", 0),
    ("loss.dt", 1000),
    ("loss.data_weight", -1.0),
    ("loss.min_snr_gamma", 0.0),
    ("loss.predictor", "rk4"),
]


def changed(config, key, value):
    *path, last = key.split(".")
    node = config
    for part in path:
        node = node[part]
    with node.unlocked(), node.ignore_type():
        node[last] = value
    return config


@pytest.mark.parametrize(("key", "value"), WRONG, ids=lambda x: str(x))
def test_a_value_out_of_its_range_is_refused_by_name(key, value, unchecked):
    config = sr.get_config("tiny")
    config.mesh.data = 1
    with pytest.raises(UserError) as caught:
        plan(changed(config, key, value))
    assert key.split(".")[-1] in str(caught.value) or "adapter" in key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        (canny, {"low": -1.0}, "low"),
        (canny, {"low": 300.0}, "low <= high"),
        (edit, {"drop": 1.0}, "drop"),
        (edit, {"instruction_channels": -1}, "instruction_channels"),
        (inpaint, {"masks": ()}, "masks"),
        (inpaint, {"masks": ("blobs",)}, "masks='blobs' is unknown"),
        (inpaint, {"holes": 3}, "holes"),
    ],
)
def test_options_of_tasks_have_ranges_too(task, options, said, unchecked):
    config = task.get_config("tiny")
    config.mesh.data = 1
    with config.task_options.unlocked():
        config.task_options.update(options)
    with pytest.raises(UserError, match=said):
        plan(config)


def test_the_autoencoder_has_its_own_sizes(unchecked):
    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    config.data.size = 30
    with pytest.raises(UserError, match=r"data\.size=30 must be a multiple of 4.*use 28 or 32"):
        plan(config)


def test_what_is_at_the_border_passes():
    config = sr.get_config("tiny")
    config.optim.clip_norm = math.inf  # turns it off
    config.optim.warmup_steps, config.optim.b1, config.ema.eval = 0, 0.0, 0.0
    config.data.clean_share = 1.0
    check_ranges(config)
    config.eval.steps = [1, 4]  # as JSON gives it
    check_ranges(config)


def test_the_message_can_be_followed():
    config = sr.get_config("tiny")
    config.checkpoint.every = 0
    expected = "config.checkpoint.every=0 is out of range: give a whole number, at least 1."
    with pytest.raises(UserError, match=re.escape(expected)):
        check_ranges(config)
    config.checkpoint.every, config.optim.b1 = 4, 1.0
    with pytest.raises(UserError, match=r"give a number from 0 to below 1\."):
        check_ranges(config)

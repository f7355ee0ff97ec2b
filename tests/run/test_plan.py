"""Every config, in every variant and with every method that fits, plans a step that can be traced.

Nothing is computed and no weights are read: the checkpoints of Stable Diffusion are folders with
their configs alone.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import pytest
from ml_collections import ConfigDict

from codi_jax.run.config import build_task
from codi_jax.run.plan import Plan, plan
from codi_jax.typing import UserError
from configs import autoencoder, canny, depth, edit, inpaint, prior, sr
from configs.methods import METHODS
from tests.jaxprs import shapes_in
from tests.smallest import shrunk, smallest

TASKS = {"sr": sr, "inpaint": inpaint, "canny": canny, "depth": depth, "edit": edit}
#: Methods that start from the model of an earlier run, and what it was trained by.
SECOND = ("cm", "cm_frozen", "guided", "progressive")

_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
_SD = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
UNETS: dict[str, tuple[dict[str, Any], str]] = {
    "sd15": (_SD, "epsilon"),
    "sd21": (
        {
            **_SD,
            "attention_head_dim": [5, 10, 20, 20],
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        "v_prediction",
    ),
    "sdxl": (
        {
            **_SD,
            "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
            "block_out_channels": [320, 640, 1280],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "transformer_layers_per_block": [1, 2, 10],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        "epsilon",
    ),
}
_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in diffusers' format with the configs of Stable Diffusion and no weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (unet, kind) in UNETS.items():
        files = {
            "model_index.json": {"_class_name": "StableDiffusionPipeline", "unet": [], "vae": []},
            "unet/config.json": unet,
            "vae/config.json": _VAE,
            "scheduler/scheduler_config.json": {**_SCHEDULER, "prediction_type": kind},
        }
        for path, content in files.items():
            file = root / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content))
    return root


@pytest.fixture(autouse=True)
def quick(unchecked):
    """Checks of annotations cost as much as the traces themselves."""


def trace(made: Plan) -> tuple[dict[str, Any], set[tuple[int, ...]]]:
    """The real step on shapes; its metrics, and the shapes of all that it computes."""
    key = jax.eval_shape(lambda: made.key)
    make = jax.make_jaxpr(made.step_fn, return_shape=True)
    jaxpr, (state, metrics) = make(made.state, made.frozen, made.batch, key)
    assert jax.tree.structure(state) == jax.tree.structure(made.state)
    for new, old in zip(*map(jax.tree.leaves, (state, made.state)), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
    assert metrics["loss"].shape == ()
    return metrics, set(shapes_in(jaxpr))


def one_device(config: ConfigDict) -> ConfigDict:
    config.mesh.data = 1
    return config


def pairs(methods: Iterable[str]) -> list[Any]:
    """Every task with every method; most beside super-resolution and CoDi are for `-m slow`."""
    return [
        pytest.param(
            task, method, marks=() if "sr" in task or method == "codi" else pytest.mark.slow
        )
        for task in TASKS
        for method in methods
    ]


@pytest.mark.parametrize(("task", "method"), pairs(["codi", "pe_codi", "finetune"]))
def test_every_task_at_its_default_size(task: str, method: str) -> None:
    trace(plan(one_device(TASKS[task].get_config(method))))


@pytest.mark.parametrize(("task", "method"), pairs(METHODS))
def test_every_task_by_every_method(task: str, method: str, model_of: Callable[..., Path]) -> None:
    config = shrunk(TASKS[task].get_config(f"tiny,{method}"))
    if method in SECOND:
        config.model.pretrained = str(model_of(task))
    trace(plan(config))


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The architecture that a tiny run of fine-tuning leaves."""
    from codi_jax.checkpoint.directory import write_architecture

    root = tmp_path_factory.mktemp("models")

    def make(task: str) -> Path:
        if not (root / task).exists():
            config = shrunk(TASKS[task].get_config("tiny,finetune"))
            write_architecture(root / task, plan(config).model)
        return root / task

    return make


@pytest.mark.parametrize("config", [prior, autoencoder])
@pytest.mark.parametrize("variant", ["default", "tiny"])
def test_what_has_no_condition(config: Any, variant: str, model_of: Callable[..., Path]) -> None:
    made = one_device(config.get_config(variant))
    if config is prior:
        made.model.pretrained = "prior" if variant == "default" else ""
        made.model.vae = sr.get_config("tiny").model.vae
        if variant == "tiny":
            made.model.unet.in_channels = made.model.unet.out_channels = 4
    trace(plan(made))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["codi", "pe_codi", "fast_codi"])
@pytest.mark.parametrize("name", UNETS)
def test_stable_diffusion_at_full_size(name: str, method: str, checkpoints: Path) -> None:
    variant = name if name != "sdxl" else "sd21"
    config = one_device(sr.get_config(f"{variant},{method}"))
    config.model.pretrained = str(checkpoints / name)
    made = plan(config)
    metrics, shapes = trace(made)
    assert {"consistency", "data"} <= set(metrics)
    # 64x64 and 32x32 latents have so many tokens: no matrix of all their scores is ever held.
    tokens = (4096, 1024)
    assert not {shape for shape in shapes if shape[-2:] in [(n, n) for n in tokens]}
    widths = {"sd15": 768, "sd21": 1024, "sdxl": 2048}
    assert made.frozen["prompt"]["text"].shape == (1, 77, widths[name])
    assert ("time_ids" in made.frozen["prompt"]) == (name == "sdxl")


@pytest.mark.parametrize(
    "task",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("inpaint", "canny", "depth", "edit")],
)
def test_the_other_tasks_on_stable_diffusion(task: str, checkpoints: Path) -> None:
    config = one_device(TASKS[task].get_config("sd21,pe_codi"))
    config.model.pretrained = str(checkpoints / "sd21")
    trace(plan(config))


def test_the_plan_makes_no_array_and_builds_the_task_once(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_device(sr.get_config("sd21"))
    config.model.pretrained = str(checkpoints / "sd21")
    built = []

    def counting(config: ConfigDict) -> Any:
        built.append(build_task(config))
        return built[-1]

    monkeypatch.setattr("codi_jax.run.plan.build_task", counting)
    live = len(jax.live_arrays())
    made = plan(config)
    leaves = jax.tree.leaves((made.state, made.frozen, made.batch))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert len(jax.live_arrays()) == live
    assert built == [made.task]


def test_a_plan_is_refused_before_anything_is_made() -> None:
    for key, value, message in (
        ("model.trainable", "(", "is no regex"),
        ("model.trainable", "nothing", "matches no parameter"),
        ("model.init", "zeros", "pretrained, random"),
        ("accumulation", 3, "accumulation=3"),
        ("dtype", "float8", "dtype='float8'"),
    ):
        config = smallest()
        config.update_from_flattened_dict({key: value})
        with pytest.raises(UserError, match=message):
            plan(config)


def test_another_autoencoder_replaces_the_pretrained_one(model_of: Callable[..., Path]) -> None:
    config = smallest()
    config.model.pretrained = config.model.autoencoder = str(model_of("sr"))
    made = plan(config)
    assert made.model.vae_directory == model_of("sr") / "vae"
    config.model.autoencoder = "prior"
    with pytest.raises(UserError, match="12 channels, and the U-Net reads 4"):
        plan(config)

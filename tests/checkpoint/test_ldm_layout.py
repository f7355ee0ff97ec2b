"""The published models in the original layout, at full size from the header alone."""

import numpy as np
import pytest

from codi_jax.checkpoint import single_file
from codi_jax.checkpoint.ldm_check import check_fits
from codi_jax.checkpoint.single_file import Reading, open_single_file
from codi_jax.diffusion.schedules import schedule_from_config
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.models.text_encoder import TextEncoderConfig
from tests.checkpoint.ldm_files import FULL, TYPE, write_hollow


def mapped_shapes(part, shapes):
    """``{diffusers name: shape}`` after cutting and transforming."""
    result = {}
    for name, source in part.tensors.items():
        array = np.broadcast_to(np.float32(0), shapes[source.name])
        array = array if source.rows is None else array[slice(*source.rows)]
        result[name] = (array if source.transform is None else source.transform(array)).shape
    return result


#: Parameters of the published models.
COUNTS = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
#: What the configurations of the published models hold beside the defaults of our classes.
UNETS = {
    "sd1": {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
    "sd2": {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "sample_size": 96,
    },
    "sdxl": {
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Every family's file, opened, but not held against our networks, which takes seconds."""
    root = tmp_path_factory.mktemp("hollow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_file, "check_fits", lambda *_: None)
        return {
            family: open_single_file(
                write_hollow(root / f"{family}.safetensors", FULL[family]),
                Reading(prediction_type=TYPE[family]),
            )
            for family in FULL
        }


@pytest.mark.parametrize(
    "family",
    ["sd1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd2", "sdxl"))],
)
def test_published_models_are_those_of_our_networks(family, published):
    found = published[family]
    check_fits(found.path, found.parts, FULL[family])


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_published_models(family, published):
    shapes, found = FULL[family], published[family]
    mapped = {name: mapped_shapes(part, shapes) for name, part in found.parts.items()}
    counts = {name: sum(int(np.prod(s)) for s in part.values()) for name, part in mapped.items()}
    assert counts == COUNTS[family]
    unet = found.parts["unet"].config
    assert {key: unet[key] for key in UNETS[family]} == UNETS[family]
    assert len(mapped["unet"]) == (1680 if family == "sdxl" else 686)
    vae = AutoencoderConfig.from_config(found.parts["vae"].config)
    assert vae == AutoencoderConfig(scaling_factor=0.13025 if family == "sdxl" else 0.18215)
    assert found.parts["vae"].config["sample_size"] == 8 * unet["sample_size"]
    if family == "sd1":
        assert UNetConfig.from_config(unet) == UNetConfig(sample_size=64)
    schedule = schedule_from_config(found.scheduler)
    assert (schedule.beta_start, schedule.beta_end) == (0.00085, 0.012)
    assert (schedule.beta_schedule, schedule.num_train_timesteps) == ("scaled_linear", 1000)
    assert found.scheduler["prediction_type"] == (TYPE[family] or "epsilon")


def test_published_text_encoders(published):
    def config(family, part):
        return TextEncoderConfig.from_config(published[family].parts[part].config)

    small = config("sd1", "text_encoder")
    assert small == config("sdxl", "text_encoder")
    assert (small.hidden_size, small.num_hidden_layers, small.hidden_act) == (768, 12, "quick_gelu")
    assert (small.num_attention_heads, small.intermediate_size) == (12, 3072)
    middle = config("sd2", "text_encoder")
    assert (middle.hidden_size, middle.num_hidden_layers, middle.hidden_act) == (1024, 23, "gelu")
    assert (middle.num_attention_heads, middle.with_projection) == (16, False)
    large = config("sdxl", "text_encoder_2")
    assert (large.hidden_size, large.num_hidden_layers, large.hidden_act) == (1280, 32, "gelu")
    assert (large.num_attention_heads, large.projection_dim) == (20, 1280)
    assert large.with_projection

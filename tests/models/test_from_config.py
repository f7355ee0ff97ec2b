"""Configs of networks from diffusers' dicts: what is kept, skipped, refused."""

import dataclasses
import json
from typing import Any

import pytest

from codi_jax.models.autoencoder_dc_config import AutoencoderDCConfig
from codi_jax.models.configs import AutoencoderConfig, UNetConfig
from codi_jax.models.from_config import FromConfig
from codi_jax.typing import UserError
from configs import autoencoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(FromConfig):
    FIXED = {"act_fn": "silu"}

    widths: tuple[int, ...] = (1, 2)
    nested: tuple[tuple[int, ...], ...] = ()
    name: str = "x"


def test_absent_keys_have_their_defaults() -> None:
    assert Toy.from_config({}) == Toy()


def test_lists_of_any_depth_become_tuples() -> None:
    """A config is a key of what is compiled: it must be hashable."""
    made = Toy.from_config({"widths": [3], "nested": [[], [5, 7]], "name": "y"})
    assert made == Toy(widths=(3,), nested=((), (5, 7)), name="y")
    assert hash(made) == hash(Toy(widths=(3,), nested=((), (5, 7)), name="y"))


def test_what_says_nothing_of_the_computation_is_skipped() -> None:
    config = {"_class_name": "Toy", "_diffusers_version": "0.3", "sample_size": 64}
    assert Toy.from_config({**config, "act_fn": "silu"}) == Toy()


def test_a_value_that_is_not_implemented_is_named() -> None:
    with pytest.raises(UserError, match=r"Toy: act_fn='gelu' is not supported \(only 'silu'\)"):
        Toy.from_config({"act_fn": "gelu"})


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(UserError, match=r"Toy: unknown key 'depth' \(value 3\)"):
        Toy.from_config({"depth": 3})


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(attention_head_dim=(5, 10, 20, 20), use_linear_projection=True),
        UNetConfig(cross_attention_dim=None, time_cond_proj_dim=8),
        AutoencoderConfig(block_out_channels=(4, 8), norm_num_groups=2, scaling_factor=0.25),
        AutoencoderDCConfig.from_config(autoencoder.get_config("tiny").model.vae.to_dict()),
    ],
    ids=lambda config: type(config).__name__,
)
def test_what_is_written_as_json_is_read_back(config: Any) -> None:
    content = json.loads(json.dumps(config.to_config()))
    read = type(config).from_config(content)
    assert read == config and hash(read) == hash(config)

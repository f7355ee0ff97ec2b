"""The names of a running average, taken apart again."""

from pathlib import Path

import pytest

from codi_jax.checkpoint import single_file
from codi_jax.checkpoint.ldm_averages import averaged_names
from codi_jax.checkpoint.single_file import Reading, open_single_file
from codi_jax.typing import UserError
from tests.checkpoint.ldm_files import FULL, averages, tiny, write_hollow

PREFIX = "model.diffusion_model."


@pytest.mark.parametrize("family", FULL)
@pytest.mark.parametrize("dotted", [False, True])
def test_every_name_is_found_without_the_plain_network(family, dotted):
    plain = {n.removeprefix(PREFIX): n for n in FULL[family] if n.startswith(PREFIX)}
    stored = averages(FULL[family])
    if dotted:
        stored = {f"model_ema.diffusion_model.{inner}": () for inner in plain}
    alone = averaged_names(Path("x"), stored, {})
    assert alone == averaged_names(Path("x"), stored, plain)
    assert alone.keys() == plain.keys() and set(alone.values()) == set(stored)


def test_which_network_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(single_file, "check_fits", lambda *_: None)  # it takes its time
    shapes = tiny("sd1")
    both = {**shapes, **averages(shapes), "model_ema.decay": ()}
    path = write_hollow(tmp_path / "sd.safetensors", both)

    def first(**reading):
        found = open_single_file(path, Reading(**reading))
        return found.parts["unet"].tensors["conv_in.weight"].name, "\n".join(found.notes)

    ema, plain = "model_ema.diffusion_modelinput_blocks00weight", f"{PREFIX}input_blocks.0.0.weight"
    name, notes = first()
    assert name == ema and "two U-Nets: the running average (EMA)" in notes
    name, notes = first(ema=False)
    assert name == plain and "the plain one was taken" in notes
    write_hollow(path, {n: s for n, s in both.items() if not n.startswith(PREFIX)})
    for ema_wanted in (True, False):
        name, notes = first(ema=ema_wanted)
        assert name == ema and "EMA) of its U-Net alone" in notes
    write_hollow(path, shapes)
    assert first()[0] == plain


def test_a_name_of_no_unet():
    with pytest.raises(UserError, match="model_ema.diffusion_modelfoo is no tensor"):
        averaged_names(Path("x"), {"model_ema.diffusion_modelfoo": ()}, {})

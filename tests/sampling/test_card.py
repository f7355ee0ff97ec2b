"""The model card: what is known is said, what is not known is not made up."""

import json

import pytest

from codi_jax.checkpoint.directory import read_directory
from codi_jax.checkpoint.hub import ASSETS
from codi_jax.sampling.card import CARD, Facts, facts_of_run, public_name, write_card

CONFIG = {
    "task": "sr",
    "method": "codi",
    "steps": 1200,
    "model": {"pretrained": "stabilityai/stable-diffusion-2-1"},
    "data": {"source": "/home/me/secret/photos"},
}
RESULTS = {
    "metrics": {"psnr": {"heading": "PSNR"}},
    "scores": {
        "bicubic": {"-": {"psnr": {"value": 25.307}}},
        "codi": {"4": {"psnr": {"value": 26.512}, "fid": {"value": "inf"}}},
    },
}


def card(directory, model, facts):
    write_card(directory, model, facts, "LOAD")
    return (directory / CARD).read_text()


def test_a_run_tells_its_base_data_steps_and_scores(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    facts = facts_of_run(tmp_path, license="openrail++")
    text = card(tmp_path, read_directory(ASSETS / "demo"), facts)
    for line in (
        'base_model: "stabilityai/stable-diffusion-2-1"',
        'license: "openrail++"',
        "pipeline_tag: image-to-image",
        "| Data | photos |",
        "| Training steps | 1,200 |",
        "| Task | sr x4 |",
        "| | steps | PSNR | fid |".replace("| |", "|  |"),
        "| bicubic | - | 25.31 | - |",
        "| codi | 4 | 26.51 | inf |",
        "LOAD",
        "python -m codi_jax.sample --checkpoint DIRECTORY --input photo.jpg --output out/",
    ):
        assert line in text, line
    assert "secret" not in text


def test_what_is_unknown_is_left_out(tmp_path):
    text = card(tmp_path, read_directory(ASSETS / "prior"), facts_of_run(tmp_path))
    assert "base_model" not in text and "license:" not in text and "Training steps" not in text
    assert "Licence | not stated" in text and "No scores were found" in text
    assert "pipeline_tag: unconditional-image-generation" in text
    assert "An autoencoder" in card(tmp_path, read_directory(ASSETS / "codec"), Facts())


@pytest.mark.parametrize("value", ["a\n---\nlicense: mit", "a | b <script>x</script>"])
def test_what_a_file_says_stays_one_cell(value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "method": value, "model": 3}))
    (tmp_path / "results.json").write_text(json.dumps({"scores": {value: 1, "x": {value: {}}}}))
    text = card(tmp_path, read_directory(ASSETS / "prior"), facts_of_run(tmp_path))
    assert text.count("\n---\n") == 1 and "<script>" not in text and "a | b" not in text


@pytest.mark.parametrize(
    ("name", "public"),
    [("owner/name", "owner/name"), ("/data/me/sd15", "sd15"), ("~/a/b", "b"), ("prior", "prior")],
)
def test_paths_of_this_machine_are_not_told(name, public):
    assert public_name(name) == public
    assert public_name(None) == ""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from codi_jax.checkpoint.tokenizer import load_tokenizer
from codi_jax.typing import UserError

pytest.importorskip("transformers", reason="sd extra")

START, END = "<|startoftext|>", "<|endoftext|>"
#: As in CLIP, the letters stand first alone, then as the end of a word. Byte 0xC3 0xA9 is "é".
LETTERS = ["!", "a", "c", "t", "Ã", "©"]
VOCABULARY = [*LETTERS, *(c + "</w>" for c in LETTERS), "at</w>", "cat</w>", START, END]
MERGES = ["a t</w>", "c at</w>"]
ID = {token: i for i, token in enumerate(VOCABULARY)}
S, E = ID[START], ID[END]
LENGTH = 8


def added(content):
    """A special token as transformers writes it into special_tokens_map.json."""
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {"content": content, **flags}


def write(directory, pad=END):
    """The files as published: SD 2.x gives its padding "!" in the second file only."""
    directory.mkdir()
    names = {"bos_token": START, "eos_token": END, "unk_token": END}
    marked = {k: {"__type": "AddedToken", **added(v)} for k, v in names.items()}
    files = {
        "vocab.json": ID,
        "special_tokens_map.json": {k: added(v) for k, v in names.items()} | {"pad_token": pad},
        "tokenizer_config.json": {
            **marked,
            "add_prefix_space": False,
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": LENGTH,
            "name_or_path": "openai/clip-vit-large-patch14",
            "pad_token": END,
            "special_tokens_map_file": "./special_tokens_map.json",
            "tokenizer_class": "CLIPTokenizer",
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return directory


def change(directory, name, **changes):
    content = json.loads((directory / name).read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not ...}
    (directory / name).write_text(json.dumps(kept))


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sd1") / "tokenizer")


def test_ids_by_hand(sd1):
    tokenizer = load_tokenizer(sd1)
    assert (tokenizer.max_length, tokenizer.vocab_size) == (LENGTH, len(VOCABULARY))
    cat, at, a, t = ID["cat</w>"], ID["at</w>"], ID["a"], ID["t</w>"]
    want = {
        "cat": [cat],
        " A  Cat\n": [ID["a</w>"], cat],  # lower case; the white space does not count
        "cta": [ID["c"], ID["t"], ID["a</w>"]],  # no merge fits
        "at cat!": [at, cat, ID["!</w>"]],
        "caat": [ID["c"], a, at],
        "Ét": [ID["Ã"], ID["©"], t],  # bytes of UTF-8
        "": [],
    }
    ids = tokenizer.encode(list(want))
    assert ids.dtype == np.int32
    rows = [[S, *tokens, *[E] * (LENGTH - 1 - len(tokens))] for tokens in want.values()]
    np.testing.assert_array_equal(ids, rows)
    assert tokenizer.encode([]).shape == (0, LENGTH)


def test_padding_is_the_checkpoints_own(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path / "sd2", pad="!"))
    ids = tokenizer.encode(["cat", "cat!"])
    cat = ID["cat</w>"]
    # With transformers an exclamation mark in the text is then padding, too.
    np.testing.assert_array_equal(ids, [[S, cat, E, 0, 0, 0, 0, 0], [S, cat, 0, E, 0, 0, 0, 0]])


def test_long_prompts_are_cut_with_a_warning(sd1, caplog):
    tokenizer = load_tokenizer(sd1)
    cat, at = ID["cat</w>"], ID["at</w>"]
    with caplog.at_level(logging.WARNING):
        fits = tokenizer.encode(["cat " * 6])
    assert not caplog.records
    np.testing.assert_array_equal(fits, [[S, *[cat] * 6, E]])
    with caplog.at_level(logging.WARNING):
        ids = tokenizer.encode(["cat", "cat " * 6 + "at at", "at " * 7])
    np.testing.assert_array_equal(ids, [[S, cat, *[E] * 6], [S, *[cat] * 6, E], [S, *[at] * 6, E]])
    first, second = (record.getMessage() for record in caplog.records)
    assert "'cat cat cat cat cat cat at at' has 10 tokens of at most 8; ignored: 'at at'" in first
    assert "9 tokens" in second


def test_as_transformers_pads_and_truncates(tmp_path):
    from transformers import CLIPTokenizer

    prompts = ["a cat!", "", "at " * 9, "tact, Cat!", f"a {END} cat"]
    for pad in (END, "!"):
        directory = write(tmp_path / pad.strip("<|>"), pad=pad)
        theirs = CLIPTokenizer.from_pretrained(directory)
        want = theirs(prompts, padding="max_length", truncation=True)["input_ids"]
        np.testing.assert_array_equal(load_tokenizer(directory).encode(prompts), want)
        # What transformers 5 saves is one tokenizer.json.
        theirs.save_pretrained(tmp_path / "saved")
        again = load_tokenizer(tmp_path / "saved")
        np.testing.assert_array_equal(again.encode(prompts), want)


def test_one_string_is_no_batch(sd1):
    with pytest.raises(TypeError, match="not one string"):
        load_tokenizer(sd1).encode("cat")


@pytest.mark.parametrize(
    "name", ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"]
)
def test_missing_and_broken_files(tmp_path, name):
    directory = write(tmp_path / "t")
    (directory / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="t cannot be read as a CLIP tokenizer.*again"):
        load_tokenizer(directory)
    (directory / name).unlink()
    with pytest.raises(UserError, match=f"t lacks {name}"):
        load_tokenizer(directory)


def test_names_of_the_hub_are_no_folders():
    with pytest.raises(UserError, match="openai/clip-vit-large-patch14: no such folder"):
        load_tokenizer("openai/clip-vit-large-patch14")


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("tokenizer_config.json", {"model_max_length": ...}, "model_max_length=1000.*: 77"),
        ("tokenizer_config.json", {"model_max_length": "77"}, "model_max_length='77'"),
        ("vocab.json", {START: ...}, "bos_token '<|startoftext|>' is not in its vocabulary"),
        ("vocab.json", {END: ...}, "eos_token '<|endoftext|>' is not in its vocabulary"),
        ("special_tokens_map.json", {"pad_token": None}, "pad_token None is not in"),
    ],
)
def test_what_is_no_clip_tokenizer(tmp_path, file, changes, says):
    directory = write(tmp_path / "t")
    change(directory, file, **changes)
    with pytest.raises(UserError, match=says.replace("|", r"\|")):
        load_tokenizer(directory)


def test_transformers_absent(sd1, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'codi_jax\[sd\]'"):
        load_tokenizer(sd1)


def test_without_pytorch_network_or_foreign_code(sd1, tmp_path):
    """Also when the checkpoint asks for code of its own."""
    directory = write(tmp_path / "t")
    change(
        directory,
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["custom.Custom", None]},
        tokenizer_class="Custom",
    )
    (directory / "custom.py").write_text("raise SystemExit('code of the checkpoint was run')")
    program = f"""
import socket, sys
sys.modules["torch"] = None
def refuse(*args, **kwargs):
    raise SystemExit("network access")
socket.socket.connect = socket.getaddrinfo = refuse
from codi_jax.checkpoint.tokenizer import load_tokenizer
print(load_tokenizer({str(directory)!r}).encode(["a cat"]).tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == load_tokenizer(sd1).encode(["a cat"]).tolist()

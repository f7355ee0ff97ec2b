"""Every command and snippet of the tutorial and the how-to pages is run, in order, at tiny size."""

import json
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from codi_jax.data.sources import SkimageSource
from tests.printed import ROOT, fences, run, split_commands

pytestmark = [
    pytest.mark.slow,
    # ml_collections reads config files so.
    pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning"),
]

PAGES = ("tutorial", *(f"howto/{page.stem}" for page in sorted((ROOT / "docs/howto").glob("*.md"))))
SD = "howto/stable_diffusion"
CONFIG = re.compile(r"--config=configs/(\w+)\.py(?::(\S+))?")
#: What is not run here, and why. tests/test_docs.py parses these commands.
NOT_RUN = {
    "python -m codi_jax.aot": "needs libtpu and minutes; tests/run/test_ahead.py runs it",
    "python -m codi_jax.prepare --source=PHOTOS --output=rgbd": "fetches a depth estimator",
    "python -m benchmarks.codec": "wants photos of 256 px and the weights of LPIPS",
    "pip": "changes the environment",
}
#: What is another in the test than on the page: small sizes, and what cannot be fetched.
TINY = {
    "stabilityai/stable-diffusion-2-1": "sd",
    "models/sd15": "models/sd21",
    "--config.model.pretrained=models/sd15": "--config.model.pretrained=models/sd21",
    "--config.model.pretrained_adapter=models/controlnet": "",
    "--config.model.prompt={text}": "--config.model.prompt=a cat",
    "--crop=256": "--crop=32",
    "--crop=512": "--crop=32",
    "--workers=2": "--workers=0",
    "--config.batch_size=32": "--config.batch_size=2",
    "1,2,4": "1",
    "4": "1",
    "20": "1",
}
#: Added to a command that does not say it.
ADDED = {"evaluate": ["--steps=1", "--count=2", "--metrics=psnr"], "sample": ["--steps=1"]}


def tiny(words: list[str]) -> list[str]:
    """A printed command, from its module on, as the test runs it."""
    module, *arguments = words[2:]
    arguments = [TINY.get(word, word) for word in arguments if TINY.get(word, word)]
    for i, word in enumerate(arguments):
        if match := CONFIG.fullmatch(word):
            names = ",".join(filter(None, match.groups()))
            arguments[i] = f"--config={ROOT}/tests/tiny_configs.py:{names}"
    given = {word.split("=")[0] for word in arguments}
    added = ADDED.get(module.split(".")[1], [])
    return [module, *arguments, *(word for word in added if word.split("=")[0] not in given)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with photos of every kind that the pages name."""
    monkeypatch.chdir(tmp_path)
    # Scores of untrained models on two pictures; a picture of 24 px is one tile.
    photos = [Image.fromarray(SkimageSource("train")[i]["image"][:48, :64]) for i in range(4)]
    for name in ("PHOTOS", "HELD_OUT", "photos", "PAIRS/night", "CAPTIONED"):
        Path(name).mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(photos):
        photo.save(f"PHOTOS/{i}.png")
        photo.save(f"CAPTIONED/{i}.png")
        Path(f"CAPTIONED/{i}.txt").write_text("a cat")
    for i, photo in enumerate(photos[:2]):
        photo.save(f"HELD_OUT/{i}.png")
        photo.resize((12, 8)).save(f"photos/{'ab'[i]}.jpg")
        photo.save(f"PAIRS/{i}.png")
        photo.convert("L").convert("RGB").save(f"PAIRS/night/{i}.png")
    row = {"instruction": "a cat"}
    rows = [
        {"file_name": f"{i}.png", "edited_file_name": f"night/{i}.png", **row} for i in range(2)
    ]
    Path("PAIRS/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    photos[0].save("photo.png")
    Image.fromarray(np.tri(48, 64, dtype=np.uint8) * 255).save("hole.png")
    Image.fromarray((np.tri(32, 32) * 60000).astype(np.uint16)).save("map.png")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page, folder):
    if page == SD:
        pytest.importorskip("torch", reason="the extra parity is not installed")
        from tests.parity.test_life import make_checkpoint

        make_checkpoint(folder, "v_prediction")
    done = 0
    for fence in fences():
        if fence.page != f"docs/{page}.md":
            continue
        if fence.language == "python":
            with jax.numpy_dtype_promotion("standard"):
                exec(compile(fence.text.replace("steps=4", "steps=1"), page, "exec"), {})
            done += 1
        if fence.language == "bash":
            for command in split_commands(fence.page, fence.text):
                if shlex.join(command.words).startswith(tuple(NOT_RUN)):
                    continue
                print(shlex.join(tiny(command.words)), file=sys.stderr)
                run(tiny(command.words))
                done += 1
    assert done > 0
    for folder_or_file in re.findall(r"--output[ =](\S+)", _text(page)):
        if not folder_or_file.startswith("rgbd"):
            assert Path(folder_or_file).exists(), folder_or_file


def _text(page: str) -> str:
    return "".join(f.text for f in fences() if f.page == f"docs/{page}.md" and f.language == "bash")

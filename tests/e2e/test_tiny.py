"""The command line, end to end, on the smallest config: results, resume, and messages."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from codi_jax import trees
from codi_jax.checkpoint.directory import load_directory
from codi_jax.checkpoint.files import load_json
from codi_jax.evals.results import Results
from codi_jax.run.train import train as train_run
from codi_jax.sample import Sampler
from codi_jax.typing import UserError
from configs import autoencoder, prior
from tests.printed import called_with
from tests.sampling.unfinished import architecture
from tests.smallest import smallest

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, as users start it."""
    devices = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": " ".join(devices), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=400,
    )


def training(workdir: Path, *overrides: str) -> list[str]:
    """The command that trains, and its arguments."""
    return [
        "codi_jax.main",
        f"--config={ROOT / 'tests' / 'smallest.py'}",
        f"--workdir={workdir}",
        *overrides,
    ]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made in this process (optax needs jax's standard dtype promotion)."""
    path = tmp_path_factory.mktemp("run") / "w"
    config = smallest(tensorboard=True, eval__steps=(1, 2))
    with jax.numpy_dtype_promotion("standard"):
        train_run(config, path)
    return path


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there are no workers")
def test_one_worker_has_all_that_share_a_run(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@tests/e2e/test_tiny.py"), "no group"


def test_writes_everything_it_promises(workdir: Path) -> None:
    results = Results.load(workdir / "results.json")
    assert results.task == "sr" and results.images == 2
    scores = results.scores
    assert list(scores) == ["bicubic", "start", "codi"]
    assert set(scores["codi"]) == set(scores["start"]) == {1, 2}
    assert {"psnr", "ssim"} <= set(scores["codi"][2])
    assert scores["codi"][2] != scores["start"][2]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "consistency", "data", "images_per_s"} <= set(lines[0])
    for step in (0, 4, 8):
        with Image.open(workdir / "samples" / f"step_{step}.png") as picture:
            picture.verify()
    assert (workdir / "config.json").is_file()
    events = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
    assert events.count(b"\x89PNG") == 3  # the pictures of each evaluation


@pytest.mark.slow
def test_autoencoder_then_prior_then_distillation(tmp_path: Path) -> None:
    """The road by which the embedded prior was made, each model loaded from the one before."""
    with jax.numpy_dtype_promotion("standard"):
        for name, module in (("vae", autoencoder), ("prior", prior)):
            config = module.get_config("tiny")
            config.batch_size = 8
            config.tensorboard, config.mesh.data = False, 1
            if name == "prior":
                config.model.pretrained = str(tmp_path / "vae" / "model")
                config.model.unet.in_channels = config.model.unet.out_channels = 4
            results = train_run(config, tmp_path / name)
            assert results.task == config.task
    config = load_json(tmp_path / "vae" / "model" / "vae" / "config.json")
    assert config["scaling_factor"] != 1.0
    model = load_directory(tmp_path / "prior" / "model")
    assert model.task is None and model.prediction_type == "v_prediction"
    assert model.vae.scaling_factor == config["scaling_factor"]
    sampler = Sampler(model)
    with pytest.raises(UserError, match="is a prior"):
        sampler(np.zeros((8, 8, 3), np.uint8))
    assert sampler.generate(size=(32, 32), steps=1, solver="sde-dpmsolver++").size == (32, 32)


@pytest.mark.slow
def test_sampler_takes_the_last_checkpoint_of_an_unfinished_run(
    workdir: Path, tmp_path: Path
) -> None:
    unfinished = tmp_path / "w"
    shutil.copytree(workdir, unfinished, ignore=shutil.ignore_patterns("model", "results.json"))
    with jax.numpy_dtype_promotion("standard"):
        expected, found = (Sampler.load(path).model for path in (workdir, unfinished))
    assert architecture(found) == architecture(expected)
    assert trees.tree_hash(found.params) == trees.tree_hash(expected.params)
    shutil.rmtree(unfinished / "checkpoints")
    (unfinished / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint"):
        Sampler.load(unfinished)


def refusal(capsys: pytest.CaptureFixture[str], module: str, *arguments: str) -> str:
    """What a command says that ends with the status 2, in this process: it starts faster."""
    with (
        called_with(module, [*arguments]),
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(SystemExit) as ended,
    ):
        importlib.import_module(module).main()
    assert ended.value.code == 2
    return capsys.readouterr().err


# ml_collections reads config files so.
@pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning")
def test_messages(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = refusal(capsys, *training(workdir, "--config.batch_size=16"))
    assert "another config" in other and "batch_size" in other
    assert "batchsize" in refusal(capsys, *training(tmp_path / "u", "--config.batchsize=4"))
    nowhere = f"--config.data.source={tmp_path / 'nowhere'}"
    assert "nowhere" in refusal(capsys, *training(tmp_path / "m", nowhere))
    sampling = "codi_jax.sample", f"--checkpoint={workdir}", "--input=nowhere.png"
    assert "nowhere.png" in refusal(capsys, *sampling)
    broken = tmp_path / "photos"
    broken.mkdir()
    (broken / "a.jpg").write_bytes(b"not a picture")
    bad = command(*training(tmp_path / "b", f"--config.data.source={broken}"))
    assert bad.returncode == 2 and "a.jpg" in bad.stderr and "Traceback" not in bad.stderr


def test_sampler_returns_what_it_was_given_at_any_size(workdir: Path) -> None:
    sampler = Sampler.load(workdir)
    lr = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    array = sampler(lr, steps=2, seed=3)
    assert array.shape == (52, 68, 3) and array.dtype == np.uint8
    picture = sampler(Image.fromarray(lr), steps=2, seed=3)
    assert isinstance(picture, Image.Image) and picture.size == (68, 52)
    np.testing.assert_array_equal(np.asarray(picture), array)
    batch = sampler(np.stack([lr, lr]), steps=2, seed=3)
    np.testing.assert_array_equal(batch[1], array)  # each picture goes through alone
    with pytest.raises(UserError, match="no text"):
        sampler(lr, prompt="a cat")
    with pytest.raises(UserError, match="steps=0"):
        sampler(lr, steps=0)
    with pytest.raises(UserError, match="solver='euler'.*ddim, "):
        sampler(lr, solver="euler")
    stochastic = [sampler(lr, steps=2, seed=3, solver="consistency") for _ in range(2)]
    np.testing.assert_array_equal(*stochastic)
    assert not np.array_equal(stochastic[0], array)
    with pytest.raises(UserError, match="floats has values from 0 to 255"):
        sampler(lr.astype(np.float32))
    with pytest.raises(UserError, match="does not exist"):
        Sampler.load("/nonexistent")


@pytest.mark.slow
def test_sample_command_line_over_a_folder(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    picture = Image.fromarray(np.full((9, 8, 3), 77, np.uint8))
    picture.save(tmp_path / "in" / "a.png")
    picture.save(tmp_path / "in" / "deep" / "b.jpg")
    done = command(
        "codi_jax.sample",
        f"--checkpoint={workdir}",
        f"--input={tmp_path / 'in'}",
        f"--output={tmp_path / 'out'}",
        "--steps=1",
        "--solver=heun",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("a.png", "deep/b.png"):
        with Image.open(tmp_path / "out" / name) as result:
            assert result.size == (32, 36)

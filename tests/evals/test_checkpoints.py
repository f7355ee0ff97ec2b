"""Scores of a small random model and of a folder, from pictures to the report."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data

from codi_jax.checkpoint.directory import save_directory
from codi_jax.data.images import save_image
from codi_jax.evals.checkpoints import (
    Evaluation,
    evaluate,
    evaluate_checkpoint,
    evaluate_folder,
    own_measures,
)
from codi_jax.evals.networks import Networks
from codi_jax.evals.report import report_text
from codi_jax.evals.results import Results
from codi_jax.sample import Sampler
from codi_jax.sampling import held_out, held_out_files
from codi_jax.sampling.held_out import Setting
from codi_jax.tasks.base import Task
from codi_jax.tasks.registry import task_of
from codi_jax.typing import UserError
from configs import canny, inpaint
from tests.smallest import shrunk, smallest

SETTING = Setting(source="skimage", count=3, crop=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model):
    """Random parameters of the tiny architecture."""
    path = tmp_path_factory.mktemp("model")
    with jax.numpy_dtype_promotion("standard"):
        save_directory(path, tiny_model(smallest()))
    return path


def psnr_only(folder):
    return Networks(["psnr", "swd"], folder)


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_without_a_counterpart_are_named(tmp_path):
    save_image(tmp_path / "hr" / "0.png", data.astronaut()[:32, :32])
    for i in range(2):
        save_image(tmp_path / "out" / f"{i}.png", data.astronaut()[:32, :32])
    folders = tmp_path / "out", tmp_path / "hr"
    with pytest.raises(UserError, match=r"out/1.png has no counterpart"):
        evaluate_folder(*folders, psnr_only(tmp_path), tmp_path / "scores")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"images": Path("out")}, "psnr, ssim, psnr_y, ...: these are compared with ground truth"),
        ({"images": Path("out"), "metrics": ("niqe", "psnr")}, "^psnr: these are compared"),
        ({"reference": Path("hr")}, "give either --checkpoint, or --images and --reference"),
        ({"checkpoint": "demo", "reference": Path("hr")}, "give either --checkpoint"),
        ({"checkpoint": "demo", "iqa_csv": ("musiq=m.csv",)}, "keep a checkpoint's by --save_imag"),
        ({"images": Path("out"), "iqa_csv": ("music=m.csv",)}, "music is no metric of pyiqa"),
    ],
)
def test_settings_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        Evaluation(**flags).check()


def test_a_folder_without_ground_truth(tmp_path):
    for i in range(2):
        save_image(tmp_path / "out" / f"{i}.png", data.astronaut()[i * 200 :][:96, :192])
    (tmp_path / "m.csv").write_text("0.png,61.5\r\n1.png,70.5\r\n")
    entry, output = f"musiq={tmp_path / 'm.csv'}", tmp_path / "scores"
    wanted = Evaluation(images=tmp_path / "out", metrics=("niqe",), iqa_csv=(entry,), output=output)
    wanted.check()
    results = evaluate(wanted, Setting())
    assert results == Results.load(output / "results.json")
    scores = results.scores["images"][None]
    assert list(scores) == ["niqe", "musiq"] and scores["musiq"].value == 66
    assert results.setting.keys() == {"images", "border", "iqa_csv"} and results.images == 2
    text = report_text(results)
    assert f"{scores['niqe'].value:.3f}" in text and "NIQE ↓ | musiq ↑" in text
    assert dataclasses.replace(wanted, metrics=None).networks() is None


@pytest.mark.slow
def test_a_model(model, tmp_path):
    """All it writes; images that do not depend on the batch; a run that goes on."""
    networks = psnr_only(tmp_path)
    first = tmp_path / "first"
    report = evaluate_checkpoint(
        str(model), SETTING, [1, 2], networks, first, batch_size=1, save_images=True, method="cm"
    )
    assert {p.name for p in first.iterdir()} == {
        "grid.png", "images", "metric_vs_metric.png", "quality_vs_steps.png", "results.json",
    }  # fmt: skip
    results = Results.load(first / "results.json")
    assert list(results.scores) == ["bicubic", "lanczos", "cm"]
    assert list(results.scores["cm"]) == [1, 2]
    assert results.setting["count"] == results.images == 3
    images = {n: [read(first / "images" / n / f"0000{i}.png") for i in range(3)] for n in "12"}
    assert report.scores == results.scores
    # By the Sampler itself, one image at a time.
    sampler = Sampler.load(model)
    key = jax.random.fold_in(jax.random.key(0), 2)
    lr = read(first / "images" / "input" / "00002.png")
    alone = np.asarray(sampler.conditional({"lr": lr[None]}, key[None], 2))[0]
    assert np.abs(alone.astype(int) - images["2"][2]).max() <= 1
    assert not np.array_equal(images["2"][0], images["2"][2])

    # One image and one number of steps are missing: only they are made.
    (first / "images" / "2" / "00001.png").unlink()
    kept = first / "images" / "2" / "00000.png"
    save_image(kept, np.zeros_like(images["2"][0]))  # to be found again, not made again
    again = evaluate_checkpoint(str(model), SETTING, [2], networks, first, save_images=True)
    assert (read(kept) == 0).all()
    remade = read(first / "images" / "2" / "00001.png")
    assert np.abs(remade.astype(int) - images["2"][1]).max() <= 1
    assert again.scores["model"][2]["psnr"] != report.scores["cm"][2]["psnr"]
    with pytest.raises(UserError, match=r"another evaluation: seed \(0 there, 1 now\)"):
        changed = dataclasses.replace(SETTING, seed=1)
        evaluate_checkpoint(str(model), changed, [2], networks, first)


@pytest.mark.slow
def test_images_are_kept_only_when_asked_and_shares_make_the_whole(model, tmp_path, monkeypatch):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    networks = psnr_only(tmp_path)
    one = evaluate_checkpoint(str(model), SETTING, [1], networks, whole)
    assert not (whole / "images").exists()
    # Two processes one after the other: the first makes image 1 alone.
    for index in (1, 0):
        monkeypatch.setattr(held_out, "share", lambda count, i=index: range(i, count, 2))
        folder = shared / "images"
        held_out.sample_held_out(str(model), SETTING, [1], 1, folder)
        names = sorted(p.name for p in (folder / "1").iterdir())
        assert names == (["00001.png"] if index else ["00000.png", "00001.png", "00002.png"])
    monkeypatch.setattr(held_out, "share", lambda count: range(0))  # nothing is left to do
    two = evaluate_checkpoint(str(model), SETTING, [1], networks, shared)
    assert one.unsampled["bicubic"] == pytest.approx(two.unsampled["bicubic"], rel=1e-3)
    assert one.curves["model"][1] == pytest.approx(two.curves["model"][1], rel=1e-3)


def test_whole_frames_of_any_size(model, tmp_path):
    photo = data.astronaut()
    sizes = [(66, 70), (40, 90), (66, 70)]
    for i, (height, width) in enumerate(sizes):
        save_image(tmp_path / "hr" / f"{i}.png", photo[:height, :width])
    setting = Setting(source=str(tmp_path / "hr"))
    evaluate_checkpoint(
        str(model), setting, [1], psnr_only(tmp_path), tmp_path / "out", save_images=True
    )
    for i, (height, width) in enumerate(sizes):
        image = read(tmp_path / "out" / "images" / "1" / held_out_files.image_name(i))
        assert image.shape == (height // 4 * 4, width // 4 * 4, 3)


def test_a_prior_is_refused(tmp_path):
    with pytest.raises(UserError, match="--checkpoint prior is a prior"):
        evaluate_checkpoint("prior", SETTING, [1], psnr_only(tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    "config", [inpaint.get_config, pytest.param(canny.get_config, marks=pytest.mark.slow)]
)
def test_every_task_is_sampled_and_scored_by_its_own_measures(config, tiny_model, tmp_path):
    config = shrunk(config("tiny"))
    with jax.numpy_dtype_promotion("standard"):
        model = tiny_model(config)
        save_directory(tmp_path / "model", model)
    task = task_of(model)
    (measure,) = task.measures
    out = tmp_path / "out"
    setting = Setting(count=2, crop=32)
    networks = Networks(None, tmp_path)
    report = evaluate_checkpoint(
        str(tmp_path / "model"), setting, [1], networks, out, batch_size=2, save_images=True
    )
    scores = report.curves["model"][1]
    assert ("psnr" in scores) == task.scored and {"swd", measure} <= set(scores)
    assert "docs/tasks.md" in report.metrics[measure].convention
    assert report.scores["model"][1][measure].interval
    assert report.setting["degradation"] is None
    with pytest.raises(UserError, match=f"--degradation=jpeg: a model for {config.task} has none"):
        noisy = dataclasses.replace(setting, degradation="jpeg")
        evaluate_checkpoint(str(tmp_path / "model"), noisy, [1], networks, out)
    if config.task == "inpaint":
        assert scores["hole_psnr"] < report.unsampled["mean fill"]["hole_psnr"]
        made, truth = (read(out / "images" / name / "00000.png") for name in ("1", "reference"))
        hole = (read(out / "images" / "input" / "00000.png") == 128).all(-1)
        np.testing.assert_array_equal(made[~hole], truth[~hole])
        assert not np.array_equal(made, truth)
    if config.task == "canny":
        other = dataclasses.replace(setting, solver="consistency")
        with pytest.raises(UserError, match="another evaluation: solver"):
            held_out.sample_held_out(str(tmp_path / "model"), other, [2], 2, out / "images")
        for name, changed in (("2a", setting), ("2b", other)):
            held_out.sample_held_out(str(tmp_path / "model"), changed, [2], 2, tmp_path / name)
        made = [read(tmp_path / name / "2" / "00000.png") for name in ("2a", "2b")]
        assert not np.array_equal(*made)


def test_measures_are_declared_and_of_each_image():
    class Odd(Task):
        measures: ClassVar = {"odd": True, "even": False}

        def score(self, pictures, batch):
            level = float(pictures.mean())
            return {"odd": level, **({"even": level} if level > 1 else {})}

    example = {"image": np.zeros((2, 2, 3), np.uint8)}
    made = held_out.Sampled(task=Odd(), setting=Setting(count=2), examples=[example] * 2)
    images = np.stack([example["image"], example["image"] + np.uint8(2)])
    assert own_measures(made, images) == {"odd": [0.0, 2.0], "even": [None, 2.0]}

    class Undeclared(Odd):
        name: ClassVar = "mine"
        measures: ClassVar = {}

    with pytest.raises(UserError, match="the task mine scores odd, of which its `measures`"):
        held_out.check_measures(Undeclared(), example)

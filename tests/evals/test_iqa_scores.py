"""Scores that pyiqa wrote: which metric, which direction, which images; a folder with them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from codi_jax.data.images import save_image
from codi_jax.evals.checkpoints import evaluate_folder
from codi_jax.evals.iqa_scores import HIGHER_IS_BETTER, IqaFile, iqa_files, read_measures
from codi_jax.evals.metrics import METRICS
from codi_jax.evals.networks import Networks
from codi_jax.evals.results import Results
from codi_jax.evals.statistics import bootstrap_interval
from codi_jax.sampling.image_files import ImageFiles
from codi_jax.typing import UserError

SCORES = {"a.png": 61.25, "b.png": 70.5, "c.png": 65.0}


@pytest.fixture
def folder(tmp_path):
    """Five small pictures, a.png to e.png."""
    for name in (*SCORES, "d.png", "e.png"):
        save_image(tmp_path / "out" / name, np.zeros((2, 2, 3), np.uint8))
    return tmp_path / "out"


def written(path: Path, rows: dict[str, float]) -> Path:
    """A file as pyiqa's inference_iqa.py writes it."""
    with open(path, "w") as file:
        writer = csv.writer(file)
        for name, score in rows.items():
            writer.writerow([name, score])
    return path


def musiq(path: Path) -> IqaFile:
    (file,) = iqa_files([f"musiq={path}"])
    return file


def test_the_name_says_which_way_is_better(tmp_path):
    entries = ["musiq=m.csv", "pi=p.csv", "clipiqa+=c.csv", "mine:lower=a=b.csv"]
    found = {file.name: (file.higher_is_better, str(file.path)) for file in iqa_files(entries)}
    assert found == {
        "musiq": (True, "m.csv"), "pi": (False, "p.csv"), "clipiqa+": (True, "c.csv"),
        "mine": (False, "a=b.csv"),
    }  # fmt: skip
    assert iqa_files(["musiq:higher=m.csv"]) == iqa_files(["musiq=m.csv"])
    for known in ("maniqa-pipal", "topiq_nr", "topiq_fr", "qalign", "liqe"):
        assert HIGHER_IS_BETTER[known]
    assert not any(HIGHER_IS_BETTER[known] for known in ("brisque", "ilniqe", "piqe", "pieapp"))
    assert not HIGHER_IS_BETTER.keys() & METRICS.keys()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["musiq.csv"], "give METRIC=FILE"),
        (["=musiq.csv"], "give METRIC=FILE"),
        (["musiq="], "give METRIC=FILE"),
        (["mine:up=m.csv"], "METRIC:higher=FILE"),
        (["music=m.csv"], r"music is no metric of pyiqa .* music:higher=m.csv or music:lower"),
        (["musiq:lower=m.csv"], "in pyiqa higher musiq is better; give musiq=m.csv"),
        (["pi:higher=m.csv"], "in pyiqa lower pi is better"),
        (["niqe=m.csv"], "computed here, by --metrics niqe.* pyiqa_niqe:lower=m.csv"),
        (["musiq=a.csv", "musiq=b.csv"], "musiq is given twice"),
    ],
)
def test_what_is_not_known_is_refused_with_a_remedy(entries, message):
    with pytest.raises(UserError, match=message):
        iqa_files(entries)


def test_scores_are_joined_by_file_name(tmp_path, folder):
    path = written(tmp_path / "m.csv", SCORES)
    images = ImageFiles(folder, ["c.png", "a.png", "b.png"])
    assert musiq(path).scores(images) == [65.0, 61.25, 70.5]
    measures = read_measures([musiq(path)], images)
    assert measures.measure(images) == {"musiq": [65.0, 61.25, 70.5]}
    assert measures.metrics()["musiq"].higher_is_better
    assert "pyiqa" in measures.metrics()["musiq"].convention
    # As Windows ends lines where pyiqa does not ask for csv's own.
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\r\r\n"))
    assert musiq(path).scores(images) == [65.0, 61.25, 70.5]


def test_other_images_are_named_with_the_command_that_helps(tmp_path, folder):
    path = written(tmp_path / "m.csv", SCORES)
    more = ImageFiles(folder, [*SCORES, "d.png", "e.png"])
    again = rf"inference_iqa.py -m musiq -t {folder} --save_file {path}"
    with pytest.raises(UserError, match=rf"no score by musiq for d.png \(2 of the 5.*{again}"):
        musiq(path).scores(more)
    fewer = ImageFiles(folder, ["a.png", "c.png"])
    with pytest.raises(UserError, match=rf"b.png, which is not in {folder} \(1 of its 3.*{again}"):
        musiq(path).scores(fewer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.png\t61.2\n", "line 1 has 1 cells"),
        (b"a.png,1,2\n", "line 1 has 3 cells"),
        (b"name,score\na.png,1\n", "line 1: the score is 'score', no finite number"),
        (b"a.png,nan\n", "line 1: the score is 'nan'"),
        (b"a.png,1\na.png,2\n", "line 2: a second score for a.png"),
        (b'a.png,"1\n', "no CSV"),
        (b"\xff\xfe", "no UTF-8 text"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, folder, content, message):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        musiq(path).scores(ImageFiles(folder, ["a.png"]))
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        musiq(path).scores(ImageFiles(folder, ["a.png"]))


def test_a_folder_with_and_without_ground_truth(tmp_path):
    photo = data.astronaut()
    for i, name in enumerate(SCORES):
        crop = photo[i * 50 : i * 50 + 32, :40]
        save_image(tmp_path / "hr" / name, crop)
        save_image(tmp_path / "out" / name, ndimage.gaussian_filter(crop, (1, 1, 0)))
    files = iqa_files([f"musiq={written(tmp_path / 'm.csv', SCORES)}"])
    output = tmp_path / "scores"
    evaluate_folder(tmp_path / "out", None, None, output, iqa=files)
    results = Results.load(output / "results.json")
    score = results.scores["images"][None]["musiq"]
    assert score.value == pytest.approx(sum(SCORES.values()) / 3)
    assert score.interval == bootstrap_interval([*SCORES.values()])
    assert list(results.scores["images"][None]) == ["musiq"] and results.images == 3
    assert results.setting["iqa_csv"] == {"musiq": str(tmp_path / "m.csv")}
    networks = Networks(["psnr"], tmp_path)
    both = evaluate_folder(tmp_path / "out", tmp_path / "hr", networks, output, iqa=files)
    assert list(both.scores["images"][None]) == ["psnr", "musiq"]

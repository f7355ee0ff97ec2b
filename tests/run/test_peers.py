"""Other programs' rows in the study: their lines, the inputs that they get, their results."""

import numpy as np
import pytest
from PIL import Image

from codi_jax.data.images import save_image
from codi_jax.evals.image_metrics import psnr
from codi_jax.evals.results import Results
from codi_jax.run.peers import check_peers, results_of, write_inputs
from codi_jax.run.study import INPUTS, Study
from codi_jax.tasks.sr import SuperResolution
from codi_jax.typing import UserError
from configs import study


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    return {"image": truth, "lr": truth[:, ::4, ::4]}


@pytest.fixture
def line(tmp_path, batch):
    """A program that darkens the ground truth, one shade for each picture."""
    for i, picture in enumerate(batch["image"]):
        save_image(tmp_path / "out" / f"0000{i}.png", picture - picture // (4 * (i + 1)))
    return {"name": "Dark", "images": str(tmp_path / "out"), "seconds": 2.5, "parameters": 10**7}


@pytest.mark.parametrize(
    "wrong",
    [{"name": 1}, {"images": None}, {"seconds": "2"}, {"parameters": 1.5}, {"seconds": -1},
     {"step": 4}],
)  # fmt: skip
def test_a_line_of_another_form_is_refused(line, wrong):
    with pytest.raises(UserError, match='no line of it; give {"name": "StableSR"'):
        check_peers([{**line, **wrong}], ())


def test_names_are_unique(line):
    least = {"name": "HYPIR", "images": "out"}
    assert check_peers([line, least], {"CoDi"}) == [line, least]
    with pytest.raises(UserError, match="no line of it"):
        check_peers([{"images": "out"}], ())
    for taken, lines in (({"Dark"}, [line]), ((), [line, line])):
        with pytest.raises(UserError, match="Dark is the name of another row"):
            check_peers(lines, taken)


def test_inputs_are_written_once_and_held_against_the_data(tmp_path, batch):
    folder = tmp_path / "inputs"
    for _ in range(2):
        write_inputs(folder, SuperResolution(), batch)
    assert sorted(p.name for p in folder.iterdir()) == ["input", "reference"]
    with Image.open(folder / "input" / "00001.png") as image:
        np.testing.assert_array_equal(image, batch["lr"][1])
    with pytest.raises(UserError, match=r"input/00000.png is not what this study reads"):
        write_inputs(folder, SuperResolution(), {**batch, "lr": 255 - batch["lr"]})


def test_results_must_be_those_of_the_inputs(tmp_path, batch, line):
    folder = tmp_path / "inputs"
    write_inputs(folder, SuperResolution(), batch)
    found = results_of([line], folder)["Dark"]
    assert [psnr(*pair) for pair in zip(found, batch["image"], strict=True)][0] < 30
    save_image(tmp_path / "out" / "00001.png", batch["lr"][1])
    with pytest.raises(UserError, match="out/00001.png is 8x8 pixels"):
        results_of([line], folder)
    (tmp_path / "out" / "00001.png").unlink()
    with pytest.raises(UserError, match=r"reference/00001.png has no counterpart in .*out"):
        results_of([line], folder)


def test_a_program_is_scored_as_the_baselines_are(tmp_path, batch, line):
    config = study.get_config("tiny")
    config.peers, config.rows = (line,), ()
    plan = Study(config, tmp_path / "study")
    samples = [{name: batch[name][i] for name in ("image", "lr")} for i in range(len(batch["lr"]))]
    plan.sets["main"].samples = samples
    methods: Results = plan.table("methods", make=True)
    assert list(methods.scores) == ["bicubic", "lanczos", "Dark"]
    with Image.open(tmp_path / "out" / "00001.png") as image:
        expected = psnr(np.asarray(image), batch["image"][1])
    assert methods.scores["Dark"][None]["psnr"].values[1] == expected
    assert plan.table("methods", make=False) == methods
    assert (tmp_path / "study" / INPUTS / "input" / "00000.png").is_file()
    config.peers = ({**line, "name": "lanczos"},)
    again = Study(config, tmp_path / "study")
    again.sets["main"].samples = samples
    with pytest.raises(UserError, match="lanczos is the name of another row"):
        again.run()

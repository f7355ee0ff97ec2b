import numpy as np
import pytest
from PIL import Image

from codi_jax.evals.pictures import CELL, GAP, LABEL, grid
from codi_jax.typing import UserError


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def noise(n, height, width, seed=0):
    # At most 200: the background is white.
    return np.random.default_rng(seed).integers(0, 200, (n, height, width, 3), np.uint8)


def test_small_pictures_are_enlarged_by_nearest_neighbour(tmp_path):
    fine, coarse = noise(3, 32, 32), noise(3, 8, 8, 1)
    path = tmp_path / "new" / "grid.png"
    grid({"result": fine, "input": coarse}, path)
    picture = read(path)
    assert picture.shape == (LABEL + 3 * (CELL + GAP), GAP + 2 * (CELL + GAP), 3)
    for row in range(3):
        y = LABEL + row * (CELL + GAP)
        for column, images, factor in ((0, fine, 4), (1, coarse, 16)):
            x = GAP + column * (CELL + GAP)
            cell = picture[y : y + CELL, x : x + CELL]
            np.testing.assert_array_equal(
                cell, images[row].repeat(factor, axis=0).repeat(factor, axis=1)
            )
    assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


def test_large_pictures_keep_their_size_and_proportions(tmp_path):
    path = tmp_path / "grid.png"
    wide, square = noise(1, 100, 150), noise(1, 50, 50, 1)
    grid({"wide": wide, "square": square}, path)
    picture = read(path)
    assert picture.shape == (LABEL + 100 + GAP, GAP + 2 * (150 + GAP), 3)
    np.testing.assert_array_equal(picture[LABEL : LABEL + 100, GAP : GAP + 150], wide[0])
    cell = picture[LABEL : LABEL + 100, 2 * GAP + 150 :][:, :150]
    np.testing.assert_array_equal(cell[:, 25:125], square[0].repeat(2, axis=0).repeat(2, axis=1))
    assert (cell[:, :25] == 255).all()
    assert (cell[:, 125:] == 255).all()


def test_rows_are_limited_to_the_first(tmp_path):
    images = noise(10, CELL, CELL)
    for max_rows, rows in ((8, 8), (2, 2), (20, 10)):
        grid({"x": images}, tmp_path / "grid.png", max_rows)
        picture = read(tmp_path / "grid.png")
        assert picture.shape[0] == LABEL + rows * (CELL + GAP)
        last = picture[-CELL - GAP : -GAP, GAP:-GAP]
        np.testing.assert_array_equal(last, images[rows - 1])


def ink(picture, y0, y1, x0, x1):
    return int((picture[y0:y1, x0:x1] < 128).sum())


def test_every_column_has_its_label_and_the_title_its_line(tmp_path):
    images = noise(1, CELL, CELL)
    path = tmp_path / "grid.png"
    step = CELL + GAP
    grid({"CoDi": images, "": images, "a $very_ long label " * 3: images}, path)
    picture = read(path)
    assert ink(picture, 0, LABEL, 0, step) > 0
    assert ink(picture, 0, LABEL, step, 2 * step) == 0  # neither of its neighbours runs into it
    assert ink(picture, 0, LABEL, 2 * step, 3 * step) > 0
    grid({"": images, " ": images}, path, title="four steps")
    picture = read(path)
    assert picture.shape[0] == 2 * LABEL + step
    assert ink(picture, 0, LABEL, 0, 2 * step) > 0
    assert ink(picture, LABEL, 2 * LABEL, 0, 2 * step) == 0


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "got {}"),
        ({"a": noise(0, 8, 8)}, "'a': 0"),
        ({"a": noise(2, 8, 8), "b": noise(1, 8, 8)}, "'a': 2, 'b': 1"),
        ({"a": noise(1, 8, 8).astype(np.float32)}, "'a' holds a float32"),
        ({"a": noise(1, 8, 8)[..., 0]}, r"'a' holds a uint8 array of shape \(8, 8\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfit_columns_are_named(tmp_path, columns, says):
    with pytest.raises(UserError, match=says):
        grid(columns, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())

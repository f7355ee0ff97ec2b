"""Canny: edges of a drawn shape, and the measure."""

import numpy as np
import pytest

from codi_jax.tasks.canny import Canny, edge_f1
from codi_jax.typing import UserError


def square():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 255
    return image


def test_edges_lie_on_the_outline_of_a_square():
    edges = Canny().edges(square())
    rows, columns = np.nonzero(edges)
    distance = np.maximum(abs(rows - 15.5), abs(columns - 15.5))
    assert len(rows) >= 56, "nearly all of the outline's 60 pixels"
    assert (abs(distance - 8) <= 1).all()
    example = Canny().prepare({"image": square()}, np.random.default_rng(0))
    np.testing.assert_array_equal(example["edges"], edges)
    np.testing.assert_array_equal(Canny().from_user(square())["edges"], edges)
    faint = np.full((32, 32, 3), 100, np.uint8)
    faint[8:24, 8:24] = 120
    assert not Canny().edges(faint).any()
    assert Canny(low=20, high=40).edges(faint).any()


def test_edge_f1():
    a = np.zeros((1, 16, 16), np.uint8)
    a[0, 4, :] = 255
    assert edge_f1(a, a) == 1.0
    assert edge_f1(np.roll(a, 1, axis=1), a) == 1.0, "one pixel off is met"
    assert edge_f1(np.roll(a, 2, axis=1), a) == 0.0
    assert edge_f1(np.zeros_like(a), a) == 0.0
    half = a.copy()
    half[0, 4, 8:] = 0
    # All 8 found edges are met; of the 16 wanted, 9 are: the nearest neighbour counts.
    assert edge_f1(half, a) == pytest.approx(2 * 1 * (9 / 16) / (1 + 9 / 16))


def test_score_compares_with_the_condition():
    task, image = Canny(), square()
    batch = {"edges": task.edges(image)[None]}
    assert task.score(image[None], batch) == {"edge_f1": 1.0}
    assert task.score(np.zeros_like(image)[None], batch) == {"edge_f1": 0.0}
    assert task.inputs(batch)["edges"].shape == (1, 32, 32, 3)
    with pytest.raises(UserError, match="no mask"):
        task.from_user(image, mask=np.zeros((32, 32), np.uint8))


def test_the_condition_is_minus_one_off_the_edges_and_one_on_them(unchecked):
    class Encoder:
        def apply(self, variables, image, *, method):
            return 2 * image

    edges = np.zeros((1, 4, 4), np.uint8)
    edges[0, 1] = 255
    found = Canny().condition(Encoder(), {}, {"edges": edges})
    expected = np.where(edges[..., None] > 0, 1.0, -1.0) * np.ones(3)
    np.testing.assert_allclose(found["image"], expected)
    np.testing.assert_allclose(found["latents"], 2 * expected)

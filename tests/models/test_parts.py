import numpy as np

from codi_jax.models import parts


def test_parts_of_a_batch_take_rows_in_turn():
    batch = {"x": np.arange(6), "y": np.arange(12).reshape(6, 2)}
    parted = parts.parts(batch, 3)
    assert parted["x"].tolist() == [[0, 3], [1, 4], [2, 5]] and parted["y"].shape == (3, 2, 2)
    for name, value in parts.whole(parted).items():
        assert value.tolist() == batch[name].tolist()

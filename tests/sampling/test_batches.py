import jax
import numpy as np
import pytest

from codi_jax.sampling.batches import Devices, buckets


def test_buckets_hold_one_shape_and_everything():
    items = [(3, i) for i in range(5)] + [(4, i) for i in range(3)]
    got = list(buckets(items, lambda item: item[:1], 2))
    assert all(len({n for n, _ in bucket}) == 1 for bucket in got)
    assert sorted(item for bucket in got for item in bucket) == sorted(items)
    assert [len(bucket) for bucket in got] == [2, 2, 2, 1, 1]


def test_map_keeps_the_order_and_uses_all_devices():
    devices = Devices(3)
    assert devices.batch_size == jax.device_count() == 8
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(2 + i % 2,)).astype(np.float32) for i in range(19)]
    scale = [np.array([i], np.float32) for i in range(19)]
    seen = []

    @jax.jit
    def f(x, k):
        return x.sum(1) * k[:, 0]

    def watched(x, k):
        seen.append((x.shape, len(x.sharding.device_set)))
        return f(x, k)

    got = devices.map(watched, rows, scale)
    np.testing.assert_allclose(got, [row.sum() * i for i, row in enumerate(rows)], rtol=1e-5)
    assert set(seen) == {((8, 2), 8), ((8, 3), 8)}
    with pytest.raises(ValueError, match="shorter"):
        devices.map(f, rows, scale[:-1])

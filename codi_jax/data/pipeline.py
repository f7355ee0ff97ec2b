"""From a source to batches: shuffled, infinite, resumable and the same for any number of workers.

Sample n of the stream is a pure function of (source, transforms, seed, n): n gives the
epoch and the shuffled image, and seeds the transforms. A global batch is a run of samples, of
which shard i of m reads the i-th part, and the iterator's state is one n. So a run may be resumed
with other numbers of workers, hosts or images per batch, and sees the samples it would have seen,
each at its place in the batch.
"""

import dataclasses
import functools
import signal
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import grain
import numpy as np
from absl import flags

from codi_jax.data.sources import Element, Source
from codi_jax.data.worker import end_with_parent
from codi_jax.typing import UserError

Batch = dict[str, Any]
Transforms = Sequence[grain.transforms.Map | grain.transforms.RandomMap]
#: Below this many images a permutation is kept in memory; see `_PermutedSource`.
_SMALL_SOURCE = 2**16


class TrainIterator(grain.DatasetIterator):
    """Infinite iterator over a shard's batches. Made by `train_iterator`.

    The state is {"next_sample": n, "seed": s, "source_size": k}: plain ints, the same on
    every shard. It counts the batches that were handed out, not those read ahead.
    """

    def __init__(
        self,
        samples: grain.MapDataset,
        *,
        identity: dict[str, int],
        batch_size: int,
        num_workers: int,
        shard_index: int,
        shard_count: int,
        prefetch: int,
    ) -> None:
        super().__init__()
        self._samples = samples
        self._identity = identity
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._shard_index, self._shard_count = shard_index, shard_count
        self._prefetch = prefetch
        self._next_sample = 0
        self._inner: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        if self._inner is None:
            self._inner = self._start()
        batch = next(self._inner)
        self._next_sample += self._batch_size * self._shard_count
        return batch

    def get_state(self) -> dict[str, int]:
        """The position before the next batch."""
        return {"next_sample": self._next_sample, **self._identity}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues from a state.

        Raises:
            UserError: it was saved with another seed or another number of images.
        """
        for key, now in self._identity.items():
            if state[key] != now:
                raise UserError(
                    f"the saved data position has {key} {state[key]}, this run {now}: it would "
                    f"see other samples; restore the old {key} or start in a new workdir."
                )
        self._stop()
        self._next_sample = int(state["next_sample"])

    def close(self) -> None:
        """Stops the workers; no batch can be asked for afterwards."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def _start(self) -> grain.DatasetIterator:
        samples = self._samples[self._next_sample :]
        if self._shard_count > 1:
            own = _OwnPart(samples, self._batch_size, self._shard_index, self._shard_count)
            samples = grain.MapDataset.range(sys.maxsize // self._shard_count).map(own)
        # Batches are made before the split over workers: worker w makes batches w, w + W, ...
        batches = samples.batch(self._batch_size)
        if self._num_workers == 0:
            ahead = grain.ReadOptions(
                num_threads=min(1, self._prefetch), prefetch_buffer_size=self._prefetch
            )
            return iter(batches.to_iter_dataset(ahead))
        if not flags.FLAGS.is_parsed():
            # Grain reads its worker flags; outside absl's app.run() nobody has parsed them.
            flags.FLAGS.mark_as_parsed()
        one_at_a_time = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        options = grain.multiprocessing.MultiprocessingOptions(
            num_workers=self._num_workers, per_worker_buffer_size=max(1, self._prefetch)
        )
        return iter(
            batches.to_iter_dataset(one_at_a_time).mp_prefetch(
                options, worker_init_fn=_start_worker
            )
        )


def train_iterator(
    source: Source,
    transforms: Transforms,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    shard_index: int = 0,
    shard_count: int = 1,
    prefetch: int = 2,
) -> TrainIterator:
    """Makes the infinite training stream, shuffled anew in each epoch.

    Args:
        source: the images.
        transforms: applied to each image in turn; all images must come out in one size.
        batch_size: images per batch of this shard.
        seed: in 0 .. 2^32 - 1.
        num_workers: worker processes; 0 reads ahead in a thread of this process.
        shard_index: this host's number, below `shard_count`.
        shard_count: number of hosts; the global batch is batch_size x shard_count.
        prefetch: batches to read ahead, per worker.

    Returns:
        An iterator of {"image": uint8 [B, S, S, 3], ..., "text": str [B], "name": str [B]}
        with `get_state`, `set_state` and `close`. Close it when there are workers.

    Raises:
        UserError: an empty source, or a number out of its range.
    """
    for name, value, low in (
        ("batch_size", batch_size, 1),
        ("num_workers", num_workers, 0),
        ("prefetch", prefetch, 0),
    ):
        if value < low:
            raise UserError(f"data: {name} is {value}; it must be at least {low}.")
    if not 0 <= shard_index < shard_count:
        raise UserError(f"data: shard_index {shard_index} is not in 0..{shard_count - 1}.")
    return TrainIterator(
        _samples(source, transforms, seed, shuffle=True),
        identity={"seed": seed, "source_size": len(source)},
        batch_size=batch_size,
        num_workers=num_workers,
        shard_index=shard_index,
        shard_count=shard_count,
        prefetch=prefetch,
    )


def eval_batch(source: Source, transforms: Transforms, count: int, seed: int) -> Batch:
    """Makes a fixed batch for evaluation: images in the source's order.

    When there are fewer than `count`, it starts again at the first one, each time with fresh
    random crops and degradations.

    Returns:
        {"image": uint8 [count, S, S, 3], ..., "text": str [count], "name": str [count]}; the
        first k samples are the same for every count of at least k.
    """
    if count < 1:
        raise UserError(f"data: the evaluation batch has {count} images; ask for at least 1.")
    return eval_samples(source, transforms, seed).batch(count)[0]


def eval_samples(source: Source, transforms: Transforms, seed: int) -> grain.MapDataset:
    """The endless random-access sequence of which `eval_batch` is the beginning.

    Item n is {"image": uint8 [H, W, 3], ..., "text": str, "name": str}, a pure function of
    (source, transforms, seed, n).
    """
    return _samples(source, transforms, seed, shuffle=False)


def _samples(
    source: Source, transforms: Transforms, seed: int, *, shuffle: bool
) -> grain.MapDataset:
    if len(source) == 0:
        raise UserError("data: the source has no image; check data.source.")
    if not 0 <= seed < 2**32:
        raise UserError(f"data: seed {seed} is not in 0..{2**32 - 1}.")
    if shuffle and len(source) < _SMALL_SOURCE:
        dataset = grain.MapDataset.range(sys.maxsize).map(_PermutedSource(source, seed))
    elif shuffle:
        dataset = grain.MapDataset.source(source).shuffle(seed).repeat()
    else:
        dataset = grain.MapDataset.source(source).repeat()
    # Repeated before the transforms, so that each epoch draws new crops and degradations.
    return functools.reduce(lambda ds, t: ds.apply(t), transforms, dataset.seed(seed))


@dataclasses.dataclass(frozen=True)
class _OwnPart:
    """Sample k of a shard: the shard has a part of each global batch."""

    samples: grain.MapDataset
    size: int
    index: int
    count: int

    def __call__(self, k: int) -> Element:
        batch, position = divmod(k, self.size)
        return self.samples[(batch * self.count + self.index) * self.size + position]


class _PermutedSource:
    """Sample n of the shuffled, repeated source, by a permutation for each epoch.

    Grain's own shuffle needs no table, but for few images it searches long: 3 ms a sample
    for ten images, more than the degradation of a small crop takes.
    """

    def __init__(self, source: Source, seed: int) -> None:
        self._source, self._seed = source, seed
        self._epoch: tuple[int, np.ndarray] | None = None

    def __call__(self, n: int) -> Element:
        epoch, position = divmod(n, len(self._source))
        kept = self._epoch  # read once: another thread may replace it
        if kept is None or kept[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            kept = self._epoch = (epoch, rng.permutation(len(self._source)))
        return self._source[int(kept[1][position])]


def _start_worker(worker_index: int, worker_count: int) -> None:
    del worker_index, worker_count
    cv2.setNumThreads(0)
    # A signal to the whole group (Ctrl-C, a scheduler's SIGTERM) is for the run, which closes its
    # workers when it has saved.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()

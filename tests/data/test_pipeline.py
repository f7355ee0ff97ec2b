import itertools
import json

import cv2
import numpy as np
import pytest

from codi_jax.data import pipeline, transforms
from codi_jax.data.degradation import Bicubic, SecondOrder
from codi_jax.data.images import save_image, to_float, unit_to_uint8, usm_sharpen
from codi_jax.data.sources import FolderSource
from codi_jax.typing import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(7):
        image = cv2.GaussianBlur(rng.random((40, 48, 3), dtype=np.float32), (0, 0), 2)
        save_image(root / f"{i}.png", np.uint8(image * 255))
    return FolderSource(root)


STEPS = (transforms.RandomCropFlip(32), transforms.Degrade(SecondOrder(), 4))


def stream(source, count, state=None, **options):
    values = {"batch_size": 3, "seed": 5, "num_workers": 0, **options}
    iterator = pipeline.train_iterator(source, STEPS, **values)
    if state is not None:
        iterator.set_state(state)
    batches = list(itertools.islice(iterator, count))
    state = iterator.get_state()
    iterator.close()
    return batches, state


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys() == {"image", "lr", "text", "name"}
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("small_source", [pipeline._SMALL_SOURCE, 0])
def test_batches_and_epochs(source, monkeypatch, small_source):
    monkeypatch.setattr(pipeline, "_SMALL_SOURCE", small_source)
    batches, _ = stream(source, 14)
    assert batches[0]["image"].shape == (3, 32, 32, 3)
    assert batches[0]["lr"].shape == (3, 8, 8, 3)
    assert batches[0]["image"].dtype == batches[0]["lr"].dtype == np.uint8
    names = np.concatenate([b["name"] for b in batches]).reshape(6, 7)
    for epoch in names:
        assert sorted(epoch) == sorted(source.names)
    assert len({tuple(epoch) for epoch in names}) > 1  # shuffled anew
    # The same image in two epochs: another crop, another degradation.
    images = np.concatenate([b["image"] for b in batches])
    same = [images[i] for i, name in enumerate(names.ravel()) if name == "0.png"]
    assert len({image.tobytes() for image in same}) == len(same)


def test_workers_do_not_change_the_stream_and_resume_is_exact(source):
    expected, _ = stream(source, 6)
    first, state = stream(source, 3, num_workers=2)
    assert_same(first, expected[:3])
    assert state == {"next_sample": 9, "seed": 5, "source_size": 7}
    state = json.loads(json.dumps(state))
    assert_same(stream(source, 3, state)[0], expected[3:])
    assert_same(stream(source, 3, state, num_workers=1)[0], expected[3:])
    assert_same(stream(source, 3, state, prefetch=0)[0], expected[3:])
    other, _ = stream(source, 1, seed=6)
    assert (other[0]["image"] != expected[0]["image"]).any()


def test_set_state_rewinds_a_running_iterator(source):
    expected, _ = stream(source, 4)
    iterator = pipeline.train_iterator(source, STEPS, batch_size=3, seed=5, num_workers=0)
    next(iterator)
    state = iterator.get_state()
    seen = [next(iterator) for _ in range(3)]
    iterator.set_state(state)
    assert_same([next(iterator) for _ in range(3)], seen)
    assert_same(seen, expected[1:])
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_shards_divide_the_stream(source):
    """The global batch is the same on one host and on two, and so is a resume on the other."""
    whole, _ = stream(source, 3, batch_size=4)
    halves = [stream(source, 3, batch_size=2, shard_index=i, shard_count=2) for i in (0, 1)]
    assert halves[0][1] == halves[1][1] == {"next_sample": 12, "seed": 5, "source_size": 7}
    for batch, first, second in zip(whole, halves[0][0], halves[1][0], strict=True):
        np.testing.assert_array_equal(batch["lr"], np.concatenate([first["lr"], second["lr"]]))
    state = halves[0][1]
    resumed, _ = stream(source, 1, state, batch_size=6)
    continued, _ = stream(source, 5, batch_size=4)
    np.testing.assert_array_equal(resumed[0]["lr"][:4], continued[3]["lr"])
    np.testing.assert_array_equal(resumed[0]["lr"][4:], continued[4]["lr"][:2])


def test_a_state_of_another_run_is_refused(source):
    _, state = stream(source, 1)
    with pytest.raises(UserError, match="seed 5, this run 6"):
        stream(source, 1, state, seed=6)
    with pytest.raises(UserError, match="source_size 8, this run 7"):
        stream(source, 1, {**state, "source_size": 8})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_breaks_later_is_named(tmp_path, num_workers):
    save_image(tmp_path / "good.png", np.zeros((40, 40, 3), np.uint8))
    save_image(tmp_path / "late.png", np.zeros((40, 40, 3), np.uint8))
    source = FolderSource(tmp_path)
    (tmp_path / "late.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"late\.png.*empty"):
        stream(source, 2, num_workers=num_workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"seed": -3}, "seed -3"),
        ({"shard_index": 2, "shard_count": 2}, "shard_index 2 is not in 0..1"),
    ],
)
def test_numbers_out_of_range(source, options, message):
    with pytest.raises(UserError, match=message):
        stream(source, 1, **options)


def test_eval_batch_is_fixed_and_repeats_photos_with_new_crops(source):
    batch = pipeline.eval_batch(source, STEPS, 9, seed=1)
    assert batch["image"].shape == (9, 32, 32, 3) and batch["lr"].shape == (9, 8, 8, 3)
    assert batch["name"].tolist() == source.names + source.names[:2]
    assert (batch["image"][0] != batch["image"][7]).any()
    again = pipeline.eval_batch(source, STEPS, 4, seed=1)
    np.testing.assert_array_equal(again["lr"], batch["lr"][:4])
    with pytest.raises(UserError, match="0 images"):
        pipeline.eval_batch(source, STEPS, 0, seed=1)


def element(image):
    return {"image": image, "text": "t", "name": "n"}


def test_crop_is_a_window_and_reaches_every_corner():
    y, x = np.mgrid[0:6, 0:7]
    image = np.stack([y, x, x], axis=-1).astype(np.uint8)
    corners, flips = set(), 0
    for seed in range(300):
        crop = transforms.RandomCropFlip(4).random_map(element(image), np.random.default_rng(seed))
        out = crop["image"].astype(int)
        assert out.flags.c_contiguous and crop["text"] == "t"
        flipped = out[0, 1, 1] < out[0, 0, 1]
        flips += flipped
        out = out[:, ::-1] if flipped else out
        top, left = out[0, 0, :2]
        np.testing.assert_array_equal(out, image[top : top + 4, left : left + 4])
        corners.add((top, left))
    assert len(corners) == 3 * 4
    assert 110 < flips < 190


@pytest.mark.parametrize("shape", [(10, 33), (33, 10), (31, 31)])
def test_small_images_are_scaled_up_to_the_crop(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    crop = transforms.RandomCropFlip(32)
    out = crop.random_map(element(image), np.random.default_rng(0))
    assert out["image"].shape == (32, 32, 3) and (out["image"] == 77).all()


def test_degrade_keeps_or_sharpens_the_target(source):
    image = source[0]["image"][:40, :40]
    plain = transforms.Degrade(Bicubic(), 4)
    out = plain.random_map(element(image), np.random.default_rng(0))
    assert out["image"] is image and out["lr"].shape == (10, 10, 3)
    sharpen = transforms.Degrade(Bicubic(), 4, sharpen=True)
    sharp = sharpen.random_map(element(image), np.random.default_rng(0))
    np.testing.assert_array_equal(sharp["image"], unit_to_uint8(usm_sharpen(to_float(image))))
    assert (sharp["lr"] != out["lr"]).any()
    with pytest.raises(UserError, match="^n: image size 39x40"):
        plain.random_map(element(image[:39]), np.random.default_rng(0))


def test_eval_samples_go_on_where_the_batch_ends(source):
    samples = pipeline.eval_samples(source, STEPS, seed=5)
    batch = pipeline.eval_batch(source, STEPS, 9, seed=5)
    for i in (0, 8):  # the second one in the source's second round
        for key in ("image", "lr"):
            np.testing.assert_array_equal(samples[i][key], batch[key][i])
    assert samples[9]["name"] == "2.png"


def test_whole_images_are_cut_to_a_multiple():
    image = np.arange(9 * 14 * 3, dtype=np.uint8).reshape(9, 14, 3)
    got = transforms.CutToMultiple(4).map({"image": image, "text": "t", "name": "n"})
    np.testing.assert_array_equal(got["image"], image[:8, :12])
    assert got["text"] == "t"
    with pytest.raises(UserError, match="n: .* less than the scale 10"):
        transforms.CutToMultiple(10).map({"image": image, "text": "", "name": "n"})

"""A model as users call it: one picture or several, of any size, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from codi_jax.diffusion.sampler_config import SamplerConfig
from codi_jax.model import AutoencoderModel, Model
from codi_jax.sampling.file_plan import Naming
from codi_jax.sampling.guidance import Guidance
from codi_jax.sampling.position_noise import position_noise
from codi_jax.sampling.reading import read_picture
from codi_jax.sampling.recipe import Progress
from codi_jax.sampling.sampler import Sampler
from codi_jax.sampling.user_files import Request, make_files
from codi_jax.typing import UserError
from configs import autoencoder
from tests.smallest import smallest

RNG = np.random.default_rng(0)
LR = RNG.integers(0, 256, (5, 7, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Model:
    return tiny_model(smallest())


@pytest.fixture(scope="module")
def sampler(model: Model) -> Sampler:
    # One tile for all the small pictures here, and so one compilation.
    return Sampler(model, tile=64)


@pytest.fixture(scope="module")
def prior(model: Model) -> Sampler:
    """The same U-Net without its adapter."""
    network = model.network.without_adapter()
    unet = dataclasses.replace(network.unet, sample_size=8)
    network = dataclasses.replace(network, unet=unet)
    return Sampler(dataclasses.replace(model, network=network, task=None, scale=1))


def test_what_was_given_comes_back_enlarged(sampler: Sampler) -> None:
    array = sampler(LR, steps=1)
    assert array.shape == (20, 28, 3) and array.dtype == np.uint8
    picture = sampler(Image.fromarray(LR), steps=1)
    assert picture.size == (28, 20)
    np.testing.assert_array_equal(np.asarray(picture), array)


def test_a_list_is_worked_through_one_by_one(sampler: Sampler) -> None:
    alone = sampler(LR, steps=1)
    for several in ([LR, Image.fromarray(LR)], np.stack([LR, LR])):
        made = sampler(several, steps=1)
        assert isinstance(made, type(several)) and len(made) == 2
        for result in made:
            np.testing.assert_array_equal(np.asarray(result), alone)


def test_pictures_of_several_sizes_and_kinds_in_one_list(sampler: Sampler, tmp_path: Path) -> None:
    Image.fromarray(LR[:3, :4]).save(tmp_path / "a.png")
    given = [LR, LR[:2], Image.fromarray(LR[1:, :, 0]), tmp_path / "a.png", LR[..., :1]]
    made = sampler(given, steps=1)
    assert [np.shape(m) for m in made] == [
        *((20, 28, 3), (8, 28, 3), (16, 28), (12, 16, 3), (20, 28, 1)),
    ]
    for one, alone in zip(made, (sampler(picture, steps=1) for picture in given), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(alone))


def test_another_size_compiles_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    sampler = Sampler(model, tile=32)

    def sizes(*all_sizes: tuple[int, int]) -> None:
        for height, width in all_sizes:
            made = sampler(np.zeros((height, width, 3), np.uint8), steps=1)
            assert made.shape == (4 * height, 4 * width, 3)

    sizes((5, 7), (9, 13))  # of one tile and of several
    compiled: list[str] = []

    def heard(event: str, duration: float, **about: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(about))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        sizes((8, 5), (1, 1), (9, 3), (20, 11), (3, 35))
        assert not compiled
        jax.jit(lambda x: x * 3 + 1)(np.zeros(7))
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)


def test_the_seed_is_all_that_is_random(sampler: Sampler) -> None:
    first, again, other = (sampler(LR, steps=1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_padded_is_cut_off(sampler: Sampler, model: Model) -> None:
    """Arrays are padded at their lower and right sides by their edge."""
    padded = sampler.pictures.padded(LR[None])
    height, width = padded.shape[1:3]
    assert height % 16 == width % 16 == 0 and height * model.scale % model.multiple == 0
    np.testing.assert_array_equal(padded[0, :5, :7], LR)
    np.testing.assert_array_equal(padded[0, 5:, :7], np.repeat(LR[-1:], height - 5, axis=0))
    np.testing.assert_array_equal(padded[0, :5, 7:], np.repeat(LR[:, -1:], width - 7, axis=1))
    numbers = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(sampler.pictures.padded(numbers), numbers)
    key = jax.random.key(0)
    whole = sampler.conditional({"lr": np.asarray(padded)}, key, 1)
    cut = sampler.conditional({"lr": LR[None]}, key, 1)
    np.testing.assert_array_equal(cut, whole[:, :20, :28])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps=0: give at least 1"),
        ({"prompt": "a cat"}, "no text encoder"),
        ({"guidance_scale": 2.0}, "no text encoder"),
        ({"solver": "euler"}, "solver='euler'"),
        ({"mask": np.zeros((5, 7), np.uint8)}, "takes no mask"),
    ],
)
def test_what_the_model_does_not_read_is_refused(
    options: dict[str, Any], said: str, sampler: Sampler
) -> None:
    with pytest.raises(UserError, match=said):
        sampler(LR, **options)


def test_masks_are_one_for_all_or_one_each(sampler: Sampler) -> None:
    with pytest.raises(UserError, match="3 masks for 2 images: one each, or one"):
        sampler([LR, LR], mask=[np.zeros((5, 7), np.uint8)] * 3)


def test_a_solver_by_name_has_few_step_settings(sampler: Sampler) -> None:
    assert sampler.recipe().sampler is sampler.model.sampler
    assert sampler.recipe(solver="heun").sampler == SamplerConfig(solver="heun")


def test_an_autoencoder_makes_no_pictures() -> None:
    from codi_jax.run.plan import plan

    config = autoencoder.get_config("tiny")
    config.mesh.data = 1
    made = plan(config).model
    assert type(made) is AutoencoderModel
    with pytest.raises(UserError, match="is an autoencoder alone"):
        Sampler(made)


def test_pictures_and_noise_are_for_different_models(sampler: Sampler, prior: Sampler) -> None:
    with pytest.raises(UserError, match="is a model for sr: give it a picture"):
        sampler.generate()
    with pytest.raises(UserError, match="is a prior, not a distilled model"):
        prior(LR)


def test_a_prior_makes_pictures_of_its_own_size_or_another(prior: Sampler) -> None:
    assert prior.generate(steps=1).size == (16, 16)
    wide = prior.generate(steps=1, size=(8, 12), seed=3)
    assert wide.size == (12, 8)
    odd = prior.generate(steps=1, size=(7, 11), seed=3)
    np.testing.assert_array_equal(np.asarray(odd), np.asarray(wide)[:7, :11])
    # Multiples of the autoencoder's factor, 2, that the U-Net cannot halve.
    assert prior.generate(steps=1, size=(6, 10)).size == (10, 6)
    with pytest.raises(UserError, match="steps=0"):
        prior.generate(steps=0)
    with pytest.raises(UserError, match="no text encoder"):
        prior.generate("a cat", steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(6, 12), (8, 10), (2, 30)])
def test_a_priors_other_sizes_that_its_unet_cannot_halve(
    size: tuple[int, int], prior: Sampler
) -> None:
    assert prior.generate(steps=1, size=size).size == size[::-1]


def test_noise_may_be_given(prior: Sampler) -> None:
    shape = (4, 6, 4)
    noise = position_noise(jax.random.split(jax.random.key(3), 2)[0], shape)
    by_seed, given = (
        prior.generate(steps=1, size=(8, 12), **options)
        for options in ({"seed": 3}, {"noise": noise})
    )
    np.testing.assert_array_equal(np.asarray(by_seed), np.asarray(given))
    with pytest.raises(UserError, match=r"noise is \[3, 6, 4\]; give \[4, 6, 4\]"):
        prior.generate(steps=1, size=(8, 12), noise=noise[:3])


def test_texts_are_encoded_once(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sampler.encode(Guidance(guidance_scale=1.0))
    assert sampler.encode(Guidance(guidance_scale=1.0)) is first
    monkeypatch.setattr(sampler, "_last", None)
    assert sampler.encode(Guidance()).scale == 1.0


def odd_pictures(folder: Path) -> list[tuple[Path, tuple[int, int], str]]:
    """Files of every kind, with the size and the mode of their results."""
    rng = np.random.default_rng(1)
    rgba = rng.integers(0, 256, (9, 6, 4), np.uint8)
    rgb, grey = Image.fromarray(rgba[..., :3].copy()), Image.fromarray(rgba[..., 0].copy())
    deep = Image.fromarray(rng.integers(0, 65536, (9, 6)).astype(np.uint16))
    exif = Image.Exif()
    exif[274] = 8
    found = []
    for name, image, mode, options in (
        ("one.png", rgb.crop((0, 0, 1, 1)), "RGB", {}),
        ("thin.png", rgb.resize((1, 90)), "RGB", {}),
        ("deep.png", deep, "I;16", {}),
        ("clear.png", Image.fromarray(rgba), "RGBA", {}),
        ("palette.png", rgb.convert("P"), "RGB", {}),
        ("ink.jpg", rgb.convert("CMYK"), "RGB", {}),
        ("la.png", Image.merge("LA", (grey, grey)), "LA", {}),
        ("moving.webp", rgb, "RGB", {"save_all": True, "append_images": [grey]}),
        ("turned.jpg", rgb, "RGB", {"exif": exif}),
    ):
        image.save(folder / name, **options)
        width, height = image.size[:: -1 if name == "turned.jpg" else 1]
        found.append((folder / name, (4 * width, 4 * height), mode))
    return found


def test_odd_pictures_from_files_and_from_python(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    expected = odd_pictures(tmp_path / "in")
    monkeypatch.setattr(Sampler, "load", lambda name, **tiling: sampler)
    request = Request(inputs=(str(tmp_path / "in"),), steps=1)
    assert make_files(request, Guidance(), Naming(output=tmp_path / "out")).failures == ()
    for path, size, mode in expected:
        with Image.open(tmp_path / "out" / f"{path.stem}.png") as file:
            assert (file.size, file.mode) == (size, mode), path
            written = np.asarray(file)
        for source in (path, str(path), Image.open(path)):
            made = sampler(source, steps=1)
            assert (made.size, made.mode) == (size, mode), path
            np.testing.assert_array_equal(np.asarray(made), written, err_msg=str(path))
        array = read_picture(path).channels()
        made = sampler(array, steps=1)
        assert made.dtype == array.dtype
        np.testing.assert_array_equal(made.squeeze(), written.squeeze(), err_msg=str(path))


def test_sizes_colours_and_progress(sampler: Sampler) -> None:
    told: list[Progress] = []
    flat = np.full((6, 5, 3), (0, 0, 255), np.uint8)
    made = sampler([flat, flat[:3]], steps=1, outscale=2.5, progress=told.append)
    assert [picture.shape for picture in made] == [(15, 12, 3), (8, 12, 3)]
    assert [p.picture for p in told] == [0] * 3 + [1] * 3
    assert [(p.tiles, p.of) for p in told[:3]] == [(1, 3), (2, 3), (3, 3)]
    wavelet, none = (sampler(flat, steps=1, color_fix=kind) for kind in (None, "none"))
    # The networks here are random; their coarse colours are the input's all the same.
    assert (
        np.abs(wavelet.mean((0, 1)) - flat[0, 0]).max()
        < np.abs(none.mean((0, 1)) - flat[0, 0]).max() / 2
    )
    assert sampler(flat, steps=1, size=(4, 9)).shape == (4, 9, 3)
    assert sampler(flat, steps=1, max_megapixels=1e-4).shape == (8, 8, 3)
    with pytest.raises(TypeError, match="colour_fix"):
        sampler(flat, colour_fix="none")

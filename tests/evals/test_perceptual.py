"""Around the networks: preprocessing, batches, weights from files. Networks: see parity/."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy import ndimage
from skimage import data

from codi_jax import trees
from codi_jax.checkpoint.files import load_json, read_metadata
from codi_jax.checkpoint.names import from_torch, to_torch, torch_name
from codi_jax.checkpoint.tokenizer import load_tokenizer
from codi_jax.evals import perceptual, weights
from codi_jax.evals.networks import DEFAULT_WEIGHTS
from codi_jax.evals.perceptual import Dists, Lpips, clip_input, inception_input
from codi_jax.models import dists, lpips
from codi_jax.models.conditioning import to_signed
from codi_jax.typing import UserError

EXAMPLE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


@pytest.fixture
def random_alexnet(tmp_path):
    """A folder with random weights in the place of AlexNet's; the parameters with the heads."""
    model = lpips.LPIPS("alex")
    x = jnp.zeros((1, 32, 32, 3))
    flat = trees.flatten(jax.eval_shape(model.init, jax.random.key(0), x, x)["params"])
    rng = np.random.default_rng(0)
    heads = load_file(weights.HEADS / "alex.safetensors")
    params, tensors = {}, {}
    for path, leaf in flat.items():
        name = torch_name(path)
        if name in heads:
            params[path] = from_torch(path, heads[name])
            continue
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        params[path] = rng.normal(0, scale, leaf.shape).astype(np.float32)
        tensors[name] = np.ascontiguousarray(to_torch(path, params[path]))
    published = weights.NETWORKS["alex"]
    save_file(tensors, tmp_path / published.converted, {"sha256": published.sha256 + "0" * 56})
    return tmp_path, model, trees.unflatten(params)


def folder_with(backbone):
    folder = DEFAULT_WEIGHTS.expanduser()
    if not (folder / weights.NETWORKS[backbone].converted).is_file():
        pytest.skip("no LPIPS weights: python -m benchmarks.lpips_weights")
    return folder


@pytest.mark.parametrize(("backbone", "value"), [("alex", 0.56777), ("vgg", 0.63162)])
def test_lpips_with_the_published_weights(backbone, value):
    """Ours, recorded when we gave the published values of the authors' example pictures."""
    folder = folder_with(backbone)
    photo = data.astronaut()[:256, 128:384]
    assert Lpips(backbone, folder)([photo], [photo[::-1]])[0] == pytest.approx(value, rel=1e-3)


def test_dists_is_what_its_authors_program_says():
    """DISTS-pytorch 0.1, by benchmarks/calibration.py."""
    metric = Dists(folder_with("vgg"))
    motorcycle = data.stereo_motorcycle()[0][100:292, 200:488]
    chelsea, coffee = data.chelsea()[50:242, 60:348], data.coffee()[100:292, 200:488]
    noise = np.random.default_rng(0).normal(0, 15, chelsea.shape)
    changed = [
        ndimage.gaussian_filter(motorcycle, (1.5, 1.5, 0)),
        np.clip(chelsea + noise, 0, 255).astype(np.uint8),
        np.roll(coffee, (3, 5), (0, 1)),
    ]
    photos = [motorcycle, chelsea, coffee]
    values = metric(*([x[:96, :96] for x in images] for images in (changed, photos)))
    np.testing.assert_allclose(values, [0.30042, 0.29242, 0.18133], atol=1e-4)


def test_dists_reads_its_weights(tmp_path):
    """VGG-16 without features: then DISTS compares the pictures themselves alone."""
    flat = trees.flatten(jax.eval_shape(dists.DISTS().init, jax.random.key(0), *[EXAMPLE] * 2))
    shapes = {path.removeprefix("params/"): leaf.shape for path, leaf in flat.items()}
    zeros = {
        torch_name(path): np.ascontiguousarray(to_torch(path, np.zeros(shape, np.float32)))
        for path, shape in shapes.items()
        if path.startswith("features")
    }
    published = weights.NETWORKS["vgg"]
    save_file(zeros, tmp_path / published.converted, {"sha256": published.sha256 + "0" * 56})
    photo = data.astronaut()[:40, :48]
    (value,) = Dists(tmp_path)([photo[::-1]], [photo])
    learned = load_file(weights.DISTS_WEIGHTS)
    a, b = photo[::-1].reshape(-1, 3) / 255, photo.reshape(-1, 3) / 255
    covariance = np.mean((a - a.mean(0)) * (b - b.mean(0)), axis=0)
    structure = (2 * covariance + 1e-6) / (a.var(0) + b.var(0) + 1e-6)
    lost = learned["beta"][:3] @ (1 - structure)  # the means of the colours are equal
    assert value == pytest.approx(lost / (learned["alpha"].sum() + learned["beta"].sum()), rel=1e-4)
    with pytest.raises(UserError, match="31x48 is too small for DISTS: give at least 32x32"):
        Dists(tmp_path)([photo[:31]], [photo[:31]])


def test_the_shipped_weights_of_dists_are_the_published_ones():
    digest = "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"
    assert read_metadata(weights.DISTS_WEIGHTS)["sha256"] == digest  # of DISTS-pytorch's weights.pt
    learned = load_file(weights.DISTS_WEIGHTS)
    assert {name: x.shape for name, x in learned.items()} == {"alpha": (1475,), "beta": (1475,)}
    assert all((x >= 0).all() for x in learned.values())


def test_lpips_of_images_of_any_size(random_alexnet):
    directory, model, params = random_alexnet
    metric = Lpips("alex", directory)
    photo = data.astronaut()
    images = [photo[:32, :40], photo[100:140, :32], photo[50:82, 60:100], photo[90:122, :40]]
    references = [np.roll(x, 3, axis=1) for x in images[:3]] + [images[3]]
    values = metric(images, references)
    assert values.shape == (4,)
    assert values[3] == pytest.approx(0, abs=1e-6)
    assert (values[:3] > 1e-3).all()
    a, b = (to_signed(jnp.stack([x[0], x[2]])) for x in (images, references))
    np.testing.assert_allclose(
        values[[0, 2]], jax.jit(model.apply)({"params": params}, a, b), rtol=1e-4
    )
    assert metric(images[1:2], references[1:2]) == pytest.approx(values[1], rel=1e-5)
    with pytest.raises(UserError, match="31x40 is too small for LPIPS"):
        metric([photo[:31, :40]], [photo[:31, :40]])


def test_the_shipped_heads_are_not_negative():
    """LPIPS's heads were trained under that bound: then a distance cannot be negative."""
    for backbone, last in (("alex", 256), ("vgg", 512)):
        heads = load_file(weights.HEADS / f"{backbone}.safetensors")
        assert len(heads) == 5
        assert all((head >= 0).all() for head in heads.values())
        assert heads["lin4.model.1.weight"].shape == (1, last, 1, 1)


def test_clip_input_is_a_centred_square():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = (255, 0, 0)
    got = clip_input(image, 20)
    assert got.shape == (20, 20, 3)
    red = (np.array([1, 0, 0]) - perceptual.CLIP_MEAN) / perceptual.CLIP_DEVIATION
    np.testing.assert_allclose(got[10, 2:-2], np.broadcast_to(red, (16, 3)), rtol=1e-5)
    photo = data.chelsea()
    got = clip_input(photo, 64) * perceptual.CLIP_DEVIATION + perceptual.CLIP_MEAN
    longer = photo.shape[1] * 64 // photo.shape[0]
    want = np.asarray(Image.fromarray(photo).resize((longer, 64), Image.Resampling.BICUBIC))
    left = round((longer - 64) / 2)
    np.testing.assert_allclose(got, want[:, left : left + 64] / 255, atol=1e-6)


def test_inception_input_against_pytorch():
    torch = pytest.importorskip("torch", reason="parity extra")
    photo = data.chelsea()
    for image in (photo, photo[:50, :70]):  # made smaller, and larger
        got = np.asarray(inception_input(jnp.asarray(image[None])))[0]
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255
        want = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear")
        np.testing.assert_allclose(got, 2 * want[0].numpy().transpose(1, 2, 0) - 1, atol=2e-5)


@pytest.fixture
def tiny_clip(tmp_path):
    """A CLIP of transformers with random weights and a tokenizer of letters."""
    torch = pytest.importorskip("torch", reason="parity extra")
    transformers = pytest.importorskip("transformers", reason="parity extra")
    letters = [chr(c) for c in range(97, 123)]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    numbered = {token: i for i, token in enumerate(vocabulary)}
    (tmp_path / "vocab.json").write_text(json.dumps(numbered))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": vocabulary[-2], "eos_token": vocabulary[-1],
               "pad_token": vocabulary[-1], "unk_token": vocabulary[-1]}  # fmt: skip
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    settings = special | {"model_max_length": 10, "tokenizer_class": "CLIPTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    n = len(numbered)
    common = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
              "num_attention_heads": 2, "initializer_factor": 4.0}  # fmt: skip
    text = common | {"vocab_size": n, "max_position_embeddings": 10,
                     "bos_token_id": n - 2, "eos_token_id": n - 1}  # fmt: skip
    vision = common | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = transformers.CLIPModel(config).eval().requires_grad_(False)
    model.text_projection.weight *= -1  # with this seed the cosines are then positive
    model.save_pretrained(tmp_path)
    return tmp_path, model


def test_clip_score_against_transformers(tiny_clip):
    import torch

    directory, theirs = tiny_clip
    assert load_json(directory / "config.json")["model_type"] == "clip"
    metric = perceptual.ClipScore(str(directory))
    photo = data.astronaut()
    images, texts = [photo[:64, :48], photo[:40, :80], photo[:64, 48:96]], ["a cat", "ox", "hen"]
    pixels = np.stack([clip_input(image, 32) for image in images]).transpose(0, 3, 1, 2)
    ids = torch.from_numpy(load_tokenizer(directory).encode(texts)).long()
    out = theirs(input_ids=ids, pixel_values=torch.from_numpy(pixels))
    cosine = (out.image_embeds * out.text_embeds).sum(-1).numpy()
    assert cosine.min() > 0.05
    np.testing.assert_allclose(metric(images, texts), 100 * cosine, rtol=1e-4)
    # Opposite directions are no worse than unrelated ones.
    opposite = jax.tree.map(jnp.negative, metric._params["visual_projection"])
    metric._params = {**metric._params, "visual_projection": opposite}
    np.testing.assert_array_equal(metric(images, texts), 0)
    with pytest.raises(UserError, match="2 texts for 3 images"):
        metric(images, ["a cat", "", "hen"])


def test_lpips_has_a_gradient_where_no_feature_is_there():
    """Also where the two pictures are one, and where every feature is zero."""
    model = lpips.LPIPS("alex")
    x = jnp.zeros((1, 35, 35, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, x)["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    @jax.jit
    def gradient_at(params, x):
        return jax.grad(lambda y: model.apply({"params": params}, x, y).sum())(x)

    gradient = gradient_at(params, x)
    assert np.isfinite(gradient).all()

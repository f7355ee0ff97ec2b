"""LPIPS, DISTS, Inception and CLIP against PyTorch on random weights, through saved files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity extra")
transformers = pytest.importorskip("transformers", reason="parity extra")

from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from codi_jax.checkpoint.diffusers_format import load_params  # noqa: E402
from codi_jax.models import clip, dists, inception, lpips, text_encoder  # noqa: E402

TOLERANCE = 1e-4


def load(model, state, tmp_path, *shapes):
    """The PyTorch tensors ``state`` as parameters of ``model``."""
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    examples = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    template = jax.eval_shape(model.init, jax.random.key(0), *examples)["params"]
    return load_params(tmp_path, template)


def conv(i, o, k, stride=1, padding=0):
    return [nn.Conv2d(i, o, k, stride, padding), nn.ReLU()]


def alexnet():
    """torchvision's ``alexnet().features``, and the indices after which LPIPS reads."""
    return nn.Sequential(
        *conv(3, 64, 11, 4, 2), nn.MaxPool2d(3, 2), *conv(64, 192, 5, 1, 2), nn.MaxPool2d(3, 2),
        *conv(192, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1), *conv(256, 256, 3, 1, 1),
    ), (1, 4, 7, 9, 11)  # fmt: skip


def vgg16():
    layers, width = [], 3
    for n in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512):
        layers += [nn.MaxPool2d(2, 2)] if n == "M" else conv(width, n, 3, 1, 1)
        width = width if n == "M" else n
    return nn.Sequential(*layers), (3, 8, 15, 22, 29)


@pytest.mark.parametrize(("name", "make"), [("alex", alexnet), ("vgg", vgg16)])
def test_lpips(parity, tmp_path, name, make):
    torch.manual_seed(0)
    features, taps = make()
    for parameter in features.parameters():  # He's initialisation keeps deep features alive
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    x, y = np.random.default_rng(0).uniform(-1, 1, (2, 2, 48, 32, 3)).astype(np.float32)

    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    a, b = ((t - shift) / scale for t in parity.torch(x, y))
    state = {f"features.{k}": v.detach() for k, v in features.state_dict().items()}
    expected = 0
    with torch.no_grad():
        for i, layer in enumerate(features):
            a, b = layer(a), layer(b)
            if i in taps:
                head = torch.rand(1, a.shape[1], 1, 1)
                state[f"lin{taps.index(i)}.model.1.weight"] = head
                units = [t / (t.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for t in (a, b)]
                difference = F.conv2d((units[0] - units[1]) ** 2, head)
                expected = expected + difference.mean((1, 2, 3))
    model = lpips.LPIPS(name)
    params = load(model, state, tmp_path, x.shape, x.shape)
    assert parity.error(parity.ours(model.apply, {"params": params}, x, y), expected) < TOLERANCE


def l2_pool(x):
    window = torch.outer(*[torch.from_numpy(np.hanning(5)[1:-1]).float()] * 2)
    kernel = (window / window.sum()).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x**2, kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


def torch_dists(features, alpha, beta, x, y):
    """Ding et al. 2020, equations 5 to 7, in a loop over the layers."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    layers = [(x, y)]
    a, b = ((t - mean) / deviation for t in (x, y))
    for i, layer in enumerate(features):
        pool = isinstance(layer, nn.MaxPool2d)
        a, b = (l2_pool(a), l2_pool(b)) if pool else (layer(a), layer(b))
        if i in (3, 8, 15, 22, 29):
            layers.append((a, b))
    similarity, start = 0, 0
    for a, b in layers:
        end = start + a.shape[1]
        mu_a, mu_b = a.mean((2, 3)), b.mean((2, 3))
        texture = (2 * mu_a * mu_b + 1e-6) / (mu_a**2 + mu_b**2 + 1e-6)
        covariance = (a * b).mean((2, 3)) - mu_a * mu_b
        variances = a.var((2, 3), correction=0) + b.var((2, 3), correction=0)
        structure = (2 * covariance + 1e-6) / (variances + 1e-6)
        similarity = similarity + (alpha[start:end] * texture + beta[start:end] * structure).sum(1)
        start = end
    return 1 - similarity / (alpha.sum() + beta.sum())


def test_dists(parity, tmp_path):
    torch.manual_seed(0)
    features, _ = vgg16()
    for parameter in features.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    alpha, beta = torch.rand(2, sum(dists.CHANNELS))
    state = {f"features.{k}": v.detach() for k, v in features.state_dict().items()}
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 2, 37, 50, 3)).astype(np.float32)
    model = dists.DISTS()
    params = load(model, {**state, "alpha": alpha, "beta": beta}, tmp_path, x.shape, x.shape)
    with torch.no_grad():
        expected = torch_dists(features, alpha, beta, *parity.torch(x, y))
    ours = parity.ours(model.apply, {"params": params}, x, y)
    assert parity.error(ours, expected) < TOLERANCE
    assert np.abs(parity.ours(model.apply, {"params": params}, x, x)).max() < 1e-5


class TorchConv(nn.Module):
    def __init__(self, i, o, k=1, **settings):
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, bias=False, **settings)
        self.bn = nn.BatchNorm2d(o, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches by name: each a chain of (suffix, out, kernel, stride), joined along channels."""

    def __init__(self, i, chains, pool=None, pool_channels=None):
        super().__init__()
        self.chains, self.pool = chains, pool
        for name, *chain in chains:
            width = i
            for suffix, out, kernel, stride in chain:
                k = kernel if isinstance(kernel, tuple) else (kernel, kernel)
                padding = (0, 0) if stride == 2 else (k[0] // 2, k[1] // 2)
                setattr(self, name + suffix, TorchConv(width, out, k, stride=stride,
                                                       padding=padding))  # fmt: skip
                width = width if suffix in ("_2a", "_3a") else out  # "a" and "b" read the same
        if pool_channels:
            self.branch_pool = TorchConv(i, pool_channels)

    def forward(self, x):
        out = []
        for name, *chain in self.chains:
            h = x
            for suffix, *_ in chain:
                layer = getattr(self, name + suffix)
                if suffix.endswith("a"):
                    out.append(layer(h))
                else:
                    h = layer(h)
            out.append(h)
        if self.pool == "reduce":
            return torch.cat([*out, F.max_pool2d(x, 3, 2)], 1)
        if self.pool == "average":
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        else:
            pooled = F.max_pool2d(x, 3, 1, 1)
        return torch.cat([*out, self.branch_pool(pooled)], 1)


def block_a(i, pool):
    return Block(i, [("branch1x1", ("", 64, 1, 1)),
                     ("branch5x5", ("_1", 48, 1, 1), ("_2", 64, 5, 1)),
                     ("branch3x3dbl", ("_1", 64, 1, 1), ("_2", 96, 3, 1), ("_3", 96, 3, 1))],
                 "average", pool)  # fmt: skip


def block_c(c):
    long, tall = (1, 7), (7, 1)
    return Block(768, [("branch1x1", ("", 192, 1, 1)),
                       ("branch7x7", ("_1", c, 1, 1), ("_2", c, long, 1), ("_3", 192, tall, 1)),
                       ("branch7x7dbl", ("_1", c, 1, 1), ("_2", c, tall, 1), ("_3", c, long, 1),
                        ("_4", c, tall, 1), ("_5", 192, long, 1))], "average", 192)  # fmt: skip


def block_e(i, pool):
    return Block(i, [("branch1x1", ("", 320, 1, 1)),
                     ("branch3x3", ("_1", 384, 1, 1), ("_2a", 384, (1, 3), 1),
                      ("_2b", 384, (3, 1), 1)),
                     ("branch3x3dbl", ("_1", 448, 1, 1), ("_2", 384, 3, 1),
                      ("_3a", 384, (1, 3), 1), ("_3b", 384, (3, 1), 1))], pool, 192)  # fmt: skip


class TorchInception(nn.Module):
    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = TorchConv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = TorchConv(32, 32, 3)
        self.Conv2d_2b_3x3 = TorchConv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = TorchConv(64, 80)
        self.Conv2d_4a_3x3 = TorchConv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            block_a(192, 32), block_a(256, 64), block_a(288, 64))  # fmt: skip
        self.Mixed_6a = Block(288, [("branch3x3", ("", 384, 3, 2)),
                                    ("branch3x3dbl", ("_1", 64, 1, 1), ("_2", 96, 3, 1),
                                     ("_3", 96, 3, 2))], "reduce")  # fmt: skip
        self.Mixed_6b, self.Mixed_6c = block_c(128), block_c(160)
        self.Mixed_6d, self.Mixed_6e = block_c(160), block_c(192)
        self.Mixed_7a = Block(768, [("branch3x3", ("_1", 192, 1, 1), ("_2", 320, 3, 2)),
                                    ("branch7x7x3", ("_1", 192, 1, 1), ("_2", 192, (1, 7), 1),
                                     ("_3", 192, (7, 1), 1), ("_4", 192, 3, 2))],
                              "reduce")  # fmt: skip
        self.Mixed_7b, self.Mixed_7c = block_e(1280, "average"), block_e(2048, "maximum")

    def forward(self, x):
        for name, layer in self.named_children():
            x = layer(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = F.max_pool2d(x, 3, 2)
        return x.mean((2, 3))


def test_inception(parity, tmp_path):
    torch.manual_seed(0)
    theirs = TorchInception().eval().requires_grad_(False)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                tensor.normal_(0, 0.1)
    x = np.random.default_rng(0).uniform(-1, 1, (2, 107, 91, 3)).astype(np.float32)
    state = {k: v for k, v in theirs.state_dict().items() if v.ndim}  # not the counters
    model = inception.InceptionV3()
    params = load(model, state, tmp_path, x.shape)
    ours = parity.ours(model.apply, {"params": params}, x)
    assert ours.shape == (2, inception.FEATURES)
    assert parity.error(ours, theirs(*parity.torch(x))) < TOLERANCE


def test_clip(parity):
    torch.manual_seed(0)
    common = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
              "num_attention_heads": 3, "initializer_factor": 4.0}  # fmt: skip
    theirs = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=common | {"vocab_size": 37, "max_position_embeddings": 10,
                                  "eos_token_id": 36, "bos_token_id": 35},
            vision_config=common | {"hidden_size": 30, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
    )  # fmt: skip
    directory = parity.save(theirs)
    config = parity.config(clip.CLIPConfig, directory)
    params = load_params(directory, clip.parameter_shapes(config))
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    ids = np.int32([[35, 4, 8, 15, 36], [35, 7, 36, 36, 36]])
    images = parity.ours(clip.CLIPImageEncoder(config).apply, {"params": params}, x)
    texts = parity.ours(text_encoder.CLIPTextEncoder(config.text).apply, {"params": params}, ids)
    with torch.no_grad():
        out = theirs(input_ids=parity.torch(ids)[0], pixel_values=parity.torch(x)[0])
    for ours, want in ((images, out.image_embeds), (texts.pooled, out.text_embeds)):
        unit = ours / np.linalg.norm(ours, axis=-1, keepdims=True)
        assert parity.error(unit, want) < TOLERANCE

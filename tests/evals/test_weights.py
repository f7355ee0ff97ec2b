import hashlib
import shlex

import numpy as np
import pytest

from codi_jax.checkpoint.diffusers_format import load_params
from codi_jax.checkpoint.files import save_tensors
from codi_jax.evals import weights
from codi_jax.evals.perceptual import InceptionFeatures, Lpips
from codi_jax.evals.weights import NETWORKS, find_weights
from codi_jax.typing import UserError


@pytest.mark.parametrize("network", NETWORKS)
def test_an_absent_file_is_named_with_the_command_that_makes_it(tmp_path, network):
    published = NETWORKS[network]
    assert published.sha256 in published.name  # its publisher's own promise
    with pytest.raises(UserError) as error:
        find_weights(network, tmp_path)
    message = str(error.value)
    for part in (published.url, published.converted, str(tmp_path), "weights_only=True"):
        assert part in message
    assert "--skip_missing" in message
    (tmp_path / published.name).write_bytes(b"")
    with pytest.raises(UserError) as error:
        find_weights(network, tmp_path)
    assert "download" not in str(error.value)


def test_a_file_of_another_source_is_refused(tmp_path):
    save_tensors(tmp_path / NETWORKS["alex"].converted, {"features.0.bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"SHA-256 \(none\), not of alexnet"):
        find_weights("alex", tmp_path)


def test_the_command_converts_what_it_should(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="parity extra")
    source = tmp_path / NETWORKS["alex"].name
    kept = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    torch.save({"features.0.weight": kept, "features.1.count": torch.tensor(3),
                "classifier.1.weight": torch.ones(2)}, source)  # fmt: skip
    python, option, program = shlex.split(weights.conversion_command("alex", tmp_path))
    assert (python, option) == ("python", "-c")
    exec(program, {})
    with pytest.raises(UserError, match="Download .*alexnet-owt"):
        find_weights("alex", tmp_path)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    changed = weights.Published(
        url=NETWORKS["alex"].url, sha256=digest[:8], keep=NETWORKS["alex"].keep
    )
    monkeypatch.setitem(NETWORKS, "alex", changed)
    template = {"features_0": {"kernel": np.zeros((2, 3), np.float32)}}
    params = load_params(find_weights("alex", tmp_path), template)
    np.testing.assert_array_equal(params["features_0"]["kernel"], kept.numpy().T)


@pytest.mark.parametrize("make", [lambda d: Lpips("vgg", d), InceptionFeatures])
def test_the_networks_ask_for_their_files(tmp_path, make):
    with pytest.raises(UserError, match="is absent"):
        make(tmp_path)

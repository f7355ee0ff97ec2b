import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from codi_jax import trees
from codi_jax.models.autoencoders import autoencoder_config, init_autoencoder
from codi_jax.models.configs import AutoencoderConfig
from codi_jax.parallel.mesh import batch_sharding, make_mesh
from codi_jax.parallel.sharding import param_shardings, state_shardings
from codi_jax.typing import UserError
from configs import autoencoder


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


PARAMS = {
    "unet": {
        "conv_in": {"kernel": shape(3, 3, 4, 32), "bias": shape(32)},
        "conv_out": {"kernel": shape(3, 3, 32, 3), "bias": shape(3)},  # 3 outputs: by inputs
        "tiny": {"kernel": shape(3, 3, 5, 3)},  # neither axis divides by 4
        "to_q": {"kernel": shape(32, 64)},
        "norm": {"scale": shape(32), "bias": shape(32)},
    },
    "text": {"token_embedding": {"embedding": shape(49, 16)}},
    "mu": shape(),
}
EXPECTED = {
    "unet/conv_in/kernel": P(None, None, None, "fsdp"),
    "unet/conv_in/bias": P(),
    "unet/conv_out/kernel": P(None, None, "fsdp"),
    "unet/conv_out/bias": P(),
    "unet/tiny/kernel": P(),
    "unet/to_q/kernel": P(None, "fsdp"),
    "unet/norm/scale": P(),
    "unet/norm/bias": P(),
    "text/token_embedding/embedding": P(None, "fsdp"),
    "mu": P(),
}


def specs(shardings):
    return {path: leaf.spec for path, leaf in trees.flatten(shardings).items()}


def test_rules_on_data_2_fsdp_4():
    assert specs(param_shardings(make_mesh(2, 4), PARAMS)) == EXPECTED


@pytest.mark.parametrize(
    "config",
    [
        AutoencoderConfig(block_out_channels=(4, 8), norm_num_groups=2),
        autoencoder_config(autoencoder.get_config("tiny").model.vae.to_dict()),
    ],
    ids=lambda config: config.CLASS,
)
def test_every_parameter_of_an_autoencoder_has_its_place(config):
    shapes = jax.eval_shape(lambda key: init_autoencoder(config, key), jax.random.key(0))
    found = trees.flatten(param_shardings(make_mesh(2, 4), shapes))
    wide = {path for path, leaf in trees.flatten(shapes).items() if leaf.shape[-1] % 4 == 0}
    kernels = {path for path in found if path.endswith("kernel")}
    assert kernels & wide
    for path in kernels & wide:
        assert found[path].spec[-1] == "fsdp"


def test_one_shard_means_replicated():
    found = specs(param_shardings(make_mesh(8, 1), PARAMS))
    assert found == dict.fromkeys(EXPECTED, P())


def test_window_axes_are_never_split():
    found = specs(param_shardings(make_mesh(2, 4), {"kernel": shape(4, 4, 3, 3)}))
    assert found == {"kernel": P()}


def test_an_unmatched_parameter_is_named():
    params = PARAMS | {"unet": PARAMS["unet"] | {"gate": {"weight_g": shape(8)}}}
    with pytest.raises(UserError, match=r"1 of 11 parameters: unet/gate/weight_g \(8,\)"):
        param_shardings(make_mesh(2, 4), params)
    with pytest.raises(UserError, match="temperature"):
        param_shardings(make_mesh(2, 4), {"temperature": shape()})
    with pytest.raises(UserError, match="weight_g"):
        state_shardings(make_mesh(2, 4), params)


def test_optimiser_state_follows_the_parameters():
    mesh = make_mesh(2, 4)
    shapes = jax.eval_shape(optax.adamw(1e-3).init, PARAMS)
    state = state_shardings(mesh, shapes)
    assert jax.tree.structure(state) == jax.tree.structure(shapes)
    adam = state[0]
    assert specs(adam.mu) == specs(adam.nu) == EXPECTED
    assert adam.count.spec == P()


def test_sharded_gradient_equals_the_one_of_one_device():
    mesh = make_mesh(2, 4)
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "a": {"kernel": jax.random.normal(keys[0], (8, 16)), "bias": jnp.zeros(16)},
        "b": {"kernel": jax.random.normal(keys[1], (16, 3))},
    }
    x = jax.random.normal(keys[2], (16, 8))

    def loss(p, x):
        hidden = jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"])
        return jnp.mean((hidden @ p["b"]["kernel"]) ** 2)

    want = jax.jit(jax.grad(loss))(params, x)
    shardings = param_shardings(mesh, params)
    sharded = jax.device_put(params, shardings)
    assert sharded["a"]["kernel"].addressable_shards[0].data.shape == (8, 4)
    grad = jax.jit(jax.grad(loss), out_shardings=shardings)
    got = grad(sharded, jax.device_put(x, batch_sharding(mesh)))
    for path, leaf in trees.flatten(got).items():
        np.testing.assert_allclose(leaf, trees.flatten(want)[path], rtol=1e-5, atol=1e-6)

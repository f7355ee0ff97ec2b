"""Group norms with common statistics: those of the whole, whatever it is cut into."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.models.norm import GroupNorm, statistics

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(1.0, 3.0, (1, 8, 8, 6)), jnp.float32)
PARAMS = {"params": {"scale": jnp.linspace(1.0, 6.0, 6), "bias": jnp.linspace(0.0, 1.0, 6)}}
NORM = GroupNorm(2)
HALVES = jnp.concatenate([X[:, :4], X[:, 4:]])


def test_alone_it_is_flaxs() -> None:
    whole = NORM.apply(PARAMS, X)
    np.testing.assert_array_equal(whole, nn.GroupNorm(2).apply(PARAMS, X))
    with statistics(jnp.ones((1, 8, 8))):
        np.testing.assert_allclose(NORM.apply(PARAMS, X), whole, atol=1e-5)


def test_the_tiles_of_a_batch_are_one_picture() -> None:
    whole = NORM.apply(PARAMS, X)
    for resolution in (4, 2, 8):  # of the weights: equal, coarser and finer
        with statistics(jnp.ones((2, resolution, 2 * resolution))) as measured:
            tiles = NORM.apply(PARAMS, HALVES)
        np.testing.assert_allclose(tiles.reshape(1, 8, 8, 6), whole, atol=1e-5)
        assert len(measured) == 1 and measured[0].mean.shape == (1, 2)


def test_what_has_no_weight_does_not_count() -> None:
    weights = jnp.zeros((2, 4, 8)).at[0].set(1.0)
    with statistics(weights):
        tiles = NORM.apply(PARAMS, HALVES)
    np.testing.assert_allclose(tiles[:1], NORM.apply(PARAMS, HALVES[:1]), atol=1e-5)


def test_given_statistics_are_used_in_one_program_with_measured_ones() -> None:
    whole = NORM.apply(PARAMS, X)
    with statistics(jnp.ones((1, 8, 8))) as measured:
        NORM.apply(PARAMS, X)
    given = (*measured,)

    @jax.jit
    def normed(tile, use_given):
        with statistics(jnp.ones((1, 4, 8)), given, use_given):
            return NORM.apply(PARAMS, tile)

    half = HALVES[:1]
    np.testing.assert_allclose(normed(half, jnp.array(True)), whole[:, :4], atol=1e-5)
    np.testing.assert_allclose(normed(half, jnp.array(False)), NORM.apply(PARAMS, half), atol=1e-5)


def test_conditions_of_a_guided_call_have_their_own() -> None:
    both = jnp.concatenate([HALVES, 2 * HALVES + 1])
    with statistics(jnp.ones((2, 4, 8))) as measured:
        made = NORM.apply(PARAMS, both)
    assert measured[0].mean.shape == (2, 2)
    np.testing.assert_allclose(made[:2], made[2:], atol=1e-4)

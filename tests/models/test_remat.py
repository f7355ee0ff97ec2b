import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.models.remat import POLICIES, _keep_products, remat_policy
from codi_jax.typing import UserError
from tests.models.tiny_unets import PLAIN, T, Z, cond_for, network, with_mu

pytestmark = pytest.mark.xdist_group("parameters")


def loss(policy, kind="mix"):
    model = network(kind, PLAIN, remat=policy)
    return lambda p: (model.predict(p, Z, T, cond_for(PLAIN)) ** 2).mean()


@functools.cache
def gradients(policy, random_params, quick_jit):
    tree = with_mu(random_params(network("mix", PLAIN).init), 0)
    return quick_jit(jax.value_and_grad(loss(policy)))(tree)


@pytest.mark.parametrize(
    "policy", ["blocks", *(pytest.param(p, marks=pytest.mark.slow) for p in ("dots", "everything"))]
)
def test_a_policy_changes_no_number(policy, random_params, quick_jit):
    value, plain = gradients("none", random_params, quick_jit)
    value_remat, remat = gradients(policy, random_params, quick_jit)
    np.testing.assert_allclose(value_remat, value, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), remat, plain)
    assert abs(float(remat["adapter"]["mu"])) > 1e-5  # mu can leave 0


def kept(function, params):
    """Bytes that the gradient of ``function`` finds when it begins: what its vjp holds."""
    held = jax.eval_shape(lambda p: jax.vjp(function, p)[1], params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(held))


@pytest.mark.parametrize("kind", ["mix", "controlnet"])
def test_each_policy_keeps_less_than_the_one_before(kind):
    params = jax.eval_shape(network(kind, PLAIN).init, jax.random.key(0))
    sizes = [kept(loss(policy, kind), params) for policy in POLICIES]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes), sizes


def test_a_controlnets_pyramid_is_computed_again():
    model = network("controlnet", PLAIN)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def hint(policy):
        adapter = network("controlnet", PLAIN, remat=policy)
        return lambda p: adapter.condition(p, cond_for(PLAIN)).sum()

    none, *others = (kept(hint(policy), params) for policy in POLICIES)
    assert max(others) < none


def test_blocks_are_the_units_of_blocks():
    params = jax.eval_shape(network("mix", PLAIN).init, jax.random.key(0))
    equations = jax.make_jaxpr(loss("blocks"))(params).eqns
    # The down block and the mid block of both encoders, and the up block.
    assert sum(e.primitive.name in ("checkpoint", "remat2", "remat") for e in equations) == 5


def test_former_values_mean_what_they_did():
    assert [remat_policy(value) for value in (False, True)] == ["none", "blocks"]
    assert [remat_policy(value) for value in ("False", "True")] == ["none", "blocks"]
    assert [remat_policy(value) for value in POLICIES] == [*POLICIES]
    with pytest.raises(UserError, match="config.model.remat='most'"):
        remat_policy("most")


def test_attentions_scores_are_no_products_to_keep():
    def scores(a, b):
        return jnp.einsum("bqc,bkc->bqk", a, b)

    def held(function, *shapes):
        kept_by = jax.checkpoint(lambda *a: jnp.sin(function(*a)), policy=_keep_products)
        args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        vjp = jax.eval_shape(lambda *a: jax.vjp(kept_by, *a)[1], *args)
        return [leaf.shape for leaf in jax.tree.leaves(vjp)]

    assert (2, 5, 7) not in held(scores, (2, 5, 3), (2, 7, 3))
    assert (2, 5, 7) in held(lambda a, b: a @ b, (2, 5, 3), (3, 7))

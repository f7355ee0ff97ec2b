"""Guidance on a network that adds its conditions up, so that the result has a closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.diffusion.guidance import GuidedCondition, cfg_predict, guided_predict
from codi_jax.diffusion.sampler import initial_noise, sample
from codi_jax.diffusion.schedules import DiscreteSchedule, expand
from codi_jax.typing import UserError

PARAMS = {"gain": jnp.float32(0.5)}
Z = initial_noise(jax.random.key(3), (3, 2, 2, 4))
T = jnp.array([1, 2, 3])
COND = {"text": jnp.array([1.0, 2.0, 3.0])}
UNCOND = {"text": jnp.array([10.0, 20.0, 30.0])}
NONE = {"text": jnp.array([100.0, 200.0, 300.0])}


def recorder():
    """The network, and the list of its calls."""
    calls = []

    def predict(params, z_t, t, cond):
        calls.append((t.tolist() if not isinstance(t, jax.core.Tracer) else t.shape, cond))
        return params["gain"] * z_t + expand(cond["text"], z_t)

    return predict, calls


def assert_adds(result, extra):
    expected = 0.5 * np.float64(Z) + np.asarray(extra)[:, None, None, None]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_without_guidance_the_condition_runs_alone():
    predict, calls = recorder()
    condition = GuidedCondition(cond=COND, scale=7.5, image_scale=2.0)  # which are not read
    assert_adds(guided_predict(predict, PARAMS, Z, T, condition), [1, 2, 3])
    assert [times for times, _ in calls] == [[1, 2, 3]]


@pytest.mark.parametrize("scale", [2.5, jnp.array([0.0, 1.0, 2.0])], ids=["one", "each"])
def test_guidance_by_text_is_one_call_with_uncond_first(scale):
    predict, calls = recorder()
    condition = GuidedCondition(cond=COND, uncond=UNCOND, scale=scale)
    w = np.broadcast_to(scale, 3)
    extra = [u + w[i] * (c - u) for i, (c, u) in enumerate([(1, 10), (2, 20), (3, 30)])]
    assert_adds(guided_predict(predict, PARAMS, Z, T, condition), extra)
    ((times, cond),) = calls
    assert times == [1, 2, 3, 1, 2, 3] and cond["text"].tolist() == [10, 20, 30, 1, 2, 3]


@pytest.mark.parametrize(("s_image", "s_text"), [(1.0, 1.0), (1.5, 7.5), (0.0, 0.0)])
def test_guidance_by_image_and_text(s_image, s_text):
    """InstructPix2Pix, equation 3: the image's part times s_I, the text's times s_T."""
    predict, calls = recorder()
    condition = GuidedCondition(
        cond=COND, uncond=UNCOND, none=NONE, scale=s_text, image_scale=s_image
    )
    result = guided_predict(predict, PARAMS, Z, T, condition)
    k = np.array([1, 2, 3])
    assert_adds(result, 100 * k + s_image * (10 * k - 100 * k) + s_text * (k - 10 * k))
    ((times, cond),) = calls
    assert times == [1, 2, 3] * 3
    assert cond["text"].tolist() == [100, 200, 300, 10, 20, 30, 1, 2, 3]


def test_a_low_precision_network_is_guided_in_float32():
    def predict(params, z_t, t, cond):
        return expand(cond["text"], z_t).astype(jnp.bfloat16) + jnp.zeros_like(z_t, jnp.bfloat16)

    condition = GuidedCondition(cond=COND, uncond=UNCOND, scale=1.001)
    result = guided_predict(predict, PARAMS, Z, T, condition)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result[:, 0, 0, 0], [0.991, 1.982, 2.973], rtol=1e-4)


def test_both_sides_need_the_same_entries():
    predict, calls = recorder()
    with pytest.raises(UserError, match=r"uncond has the entries \['words'\].*\['text'\]"):
        cfg_predict(predict, PARAMS, Z, T, COND, {"words": UNCOND["text"]}, 2.0)
    assert not calls


def test_map_leaves_out_what_is_not_there():
    def doubled(cond):
        return {name: 2 * value for name, value in cond.items()}

    both = GuidedCondition(cond=COND, uncond=UNCOND, scale=3.0).map(doubled)
    assert both.cond["text"].tolist() == [2, 4, 6] and both.uncond["text"].tolist() == [20, 40, 60]
    assert both.none is None and both.scale == 3.0
    assert GuidedCondition(none=NONE).map(doubled).none["text"].tolist() == [200, 400, 600]


@pytest.mark.parametrize("by_image", [False, True])
def test_sampling_with_guidance_equals_sampling_the_guided_network(by_image):
    """Under jit, where the scales are arguments and the conditions decide the program."""
    schedule, (predict, calls) = DiscreteSchedule(), recorder()
    none = NONE if by_image else None
    condition = GuidedCondition(cond=COND, uncond=UNCOND, none=none, scale=3.0, image_scale=1.5)
    run = jax.jit(
        functools.partial(sample, predict, PARAMS, schedule, "sample", num_inference_steps=3)
    )
    result = run(Z, condition)
    assert {times for times, _ in calls} == {(9,) if by_image else (6,)}
    k, z = np.array([1.0, 2.0, 3.0]), np.float64(Z)
    base = 100 * k + 1.5 * (10 * k - 100 * k) if by_image else 10 * k
    extra = (base + 3 * (k - 10 * k))[:, None, None, None]
    for t, s in [(999, 666), (666, 332), (332, -1)]:
        levels = [[np.float64(a) for a in schedule.alpha_sigma(jnp.int32(i))] for i in (t, s)]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = levels
        x_hat = 0.5 * z + extra
        z = alpha_s * x_hat + sigma_s * (z - alpha_t * x_hat) / sigma_t
    np.testing.assert_allclose(result, z, rtol=1e-4)

"""The options of the CoDi loss that presets and ablations set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.distances import min_snr_weight
from codi_jax.typing import UserError
from tests.distill.toy import (
    PARAMS,
    SCHEDULE,
    TARGET,
    Recorder,
    levels,
    make_batch,
    mean_square,
    network,
    predict_numpy,
    run,
)

SETTINGS = {"schedule": SCHEDULE, "prediction_type": "v_prediction"}


def test_spaces_of_the_data_term():
    """With E and D that are no inverses, and an LPIPS that can be recognised."""
    batch, key = make_batch(), jax.random.key(6)
    batch["images"] = jnp.ones((6, 6, 4, 4))
    networks = {
        "decode": lambda z: 2.0 * jnp.repeat(jnp.repeat(z, 2, 1), 2, 2),
        "encode": lambda y: y[:, ::2, ::2] + 1.0,
        "perceptual": lambda a, b: jnp.mean(jnp.abs(a - 3 * b), axis=(1, 2, 3)),
    }
    found = {}
    for space in ("latent", "reencoded", "pixel", "lpips"):
        loss, predict = CoDiLoss(**SETTINGS, data_space=space), Recorder()
        assert loss.needs.perceptual == (space == "lpips")
        found[space] = run(loss, predict, PARAMS, TARGET, batch, key, **networks)["data"]
        (_, z_t, t), _ = predict.calls
    x, c = np.float64(batch["latents"]), np.float64(batch["cond"]["c"])
    x_hat, _ = predict_numpy("v_prediction", PARAMS, z_t, t, c)
    expected = {
        "latent": mean_square(x, x_hat),
        "reencoded": mean_square(x, 2 * x_hat + 1),
        "pixel": mean_square(1.0, 2 * x_hat),
        "lpips": np.abs(1 - 6 * x_hat).mean(axis=(1, 2, 3)),
    }
    for space, value in expected.items():
        np.testing.assert_allclose(found[space], value, rtol=1e-3, err_msg=space)
        if space == "lpips":
            continue
        loss = CoDiLoss(**SETTINGS, data_space=space, lpips_weight=0.25)
        assert loss.needs.perceptual and loss.needs.decoder
        both = run(loss, Recorder(), PARAMS, TARGET, batch, key, **networks)["data"]
        np.testing.assert_allclose(both, value + 0.25 * expected["lpips"], rtol=1e-3)


def test_a_grid_of_times_ends_at_the_boundary():
    loss = CoDiLoss(**SETTINGS, grid_steps=2, consistency_space="x", timestep_scaling=10.0)
    pairs = set()
    for seed in range(6):
        predict = Recorder()
        run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(seed))
        (_, _, t), (_, _, s) = predict.calls
        assert len(set(t.tolist())) == 1
        pairs.add((int(t[0]), int(s[0])))
    assert pairs == {(999, 499), (499, 0)}


def test_guidance_in_both_networks():
    """The toy is linear in c: guidance by w away from c = 0 is the condition times w."""
    loss = CoDiLoss(**SETTINGS, guidance_range=(2.0, 13.0))
    batch, scales = make_batch(), []

    def predict(params, z, t, cond):
        scales.append(np.asarray(cond["guidance_scale"]))
        return network(params, z, t.astype(jnp.float32), cond["c"])

    guided = run(
        loss,
        predict,
        PARAMS,
        TARGET,
        batch,
        jax.random.key(2),
        null=lambda cond: {**cond, "c": jnp.zeros_like(cond["c"])},
    )
    w = scales[0][:6]
    assert len(scales) == 2 and w.min() >= 2.0 and w.max() <= 13.0
    np.testing.assert_array_equal(scales[0], np.concatenate([w, w]))
    np.testing.assert_array_equal(scales[1], scales[0])
    batch["cond"]["c"] = batch["cond"]["c"] * w[:, None, None, None]
    plain = run(CoDiLoss(**SETTINGS), Recorder(), PARAMS, TARGET, batch, jax.random.key(2))
    for name in ("consistency", "data"):
        np.testing.assert_allclose(guided[name], plain[name], rtol=1e-3, err_msg=name)


def test_min_snr_weights_errors_of_x_and_eps_alike_above_the_floor():
    t = np.array([0, 300, 700, 999])
    alpha, sigma = (level.reshape(-1) for level in levels(t))
    snr = alpha**2 / sigma**2
    assert snr[0] > 5 > snr[-1]
    arrays = jnp.asarray(alpha, jnp.float32), jnp.asarray(sigma, jnp.float32)
    x, eps = (min_snr_weight(*arrays, 5.0, space) for space in ("x", "eps"))
    np.testing.assert_allclose(x, np.clip(snr, 1, 5), rtol=1e-3)
    above = snr >= 1
    np.testing.assert_allclose((eps * snr)[above], x[above], rtol=1e-3)
    zero = jnp.zeros(1), jnp.ones(1)  # zero terminal SNR
    assert float(min_snr_weight(*zero, 5.0, "x")[0]) == 1.0  # what one-step sampling starts at
    assert float(min_snr_weight(*zero, 5.0, "eps")[0]) == 1.0
    predict = Recorder()
    loss = CoDiLoss(**SETTINGS, min_snr_gamma=5.0, data_weight=0.5, time_per="sample")
    result = run(loss, predict, PARAMS, TARGET, make_batch(), jax.random.key(1))
    alpha, sigma = (level.reshape(-1) for level in levels(predict.calls[0][2]))
    snr = alpha**2 / sigma**2
    expected = np.minimum(1, 5 / snr) * result["consistency"]
    expected = expected + 0.5 * np.clip(snr, 1, 5) * result["data"]
    np.testing.assert_allclose(result["loss"], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_space": "pixels"}, "latent, reencoded, pixel, lpips"),
        ({"timestep_scaling": 10.0}, "consistency_space='x'"),
        ({"grid_steps": 20, "dt": 20}, "grid_steps=20 replaces dt=20"),
        ({"grid_steps": 0}, "grid_steps=0"),
        ({"guidance_range": (13.0, 2.0)}, "guidance_range"),
        ({"lpips_weight": -1.0}, "lpips_weight=-1"),
        ({"lpips_weight": float("nan")}, "lpips_weight=nan"),
        ({"lpips_weight": 1.0, "data_space": "lpips"}, "leave out lpips_weight"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        CoDiLoss(**SETTINGS, **changes)

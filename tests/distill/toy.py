"""A toy network and its levels in float64, shared by the tests of the losses."""

import jax
import jax.numpy as jnp
import numpy as np

from codi_jax.diffusion.schedules import DiscreteSchedule
from codi_jax.distill.loss import Networks, StepContext

SCHEDULE = DiscreteSchedule()
SHAPE = (6, 3, 2, 4)
PARAMS = {"w": jnp.float32(0.7), "b": jnp.float32(-0.4)}
TARGET = {"w": jnp.float32(0.6), "b": jnp.float32(-0.2)}


def make_batch():
    x, c = jax.random.normal(jax.random.key(11), (2, *SHAPE))
    return {"latents": 0.8 * x + 0.3, "cond": {"c": c}}


def network(params, z, t, c):
    """A toy network that uses all of its inputs; works on numpy and on jax arrays."""
    return params["w"] * z + params["b"] * (t / 1000.0).reshape(-1, 1, 1, 1) * z**2 + 0.1 * c


class Recorder:
    """`network` as a PredictFn that remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, params, z_t, t, cond):
        self.calls.append((params, np.float64(z_t), np.asarray(t)))
        return network(params, z_t, t.astype(jnp.float32), cond["c"])


def levels(t):
    """alpha and sigma of Stable Diffusion's betas, float64 [B, 1, 1, 1]."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    log_abar = np.cumsum(np.log1p(-betas))[t].reshape(-1, 1, 1, 1)
    return np.exp(log_abar / 2), np.sqrt(-np.expm1(log_abar))


def convert(prediction_type, output, z, t):
    alpha, sigma = levels(t)
    if prediction_type == "v_prediction":
        return alpha * z - sigma * output, alpha * output + sigma * z
    if prediction_type == "epsilon":
        return (z - sigma * output) / alpha, output
    return output, (z - alpha * output) / sigma


def predict_numpy(prediction_type, params, z, t, c):
    params = {k: float(v) for k, v in params.items()}
    return convert(prediction_type, network(params, z, t, c), z, t)


def mean_square(a, b):
    return ((a - b) ** 2).mean(axis=(1, 2, 3))


def run(loss, predict, params, target, batch, key, teacher=None, **networks):
    """``loss`` at step 0 without accumulation."""
    context = StepContext(key, jnp.zeros((), jnp.int32))
    networks |= {} if teacher is None else {"teacher": teacher}
    return loss(Networks(predict, **networks), params, target, batch, context)

"""What a loss says that it needs is what it calls; the draws of parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codi_jax.distill.autoencoding import AutoencoderLoss
from codi_jax.distill.codi import CoDiLoss
from codi_jax.distill.consistency import ConsistencyLoss
from codi_jax.distill.finetune import DiffusionLoss
from codi_jax.distill.loss import Needs, Networks, StepContext
from codi_jax.distill.progressive import GuidedLoss, ProgressiveLoss
from tests.distill.toy import PARAMS, SCHEDULE, TARGET, make_batch, network

SETTINGS = {"schedule": SCHEDULE, "prediction_type": "v_prediction"}
CODI = Needs(target="target")
CM = Needs(target="target", teacher="start")
LOSSES = {
    "codi": (CoDiLoss(**SETTINGS), CODI),
    "ddim": (CoDiLoss(**SETTINGS, predictor="ddim"), Needs(target="target", teacher="prior")),
    "pixel": (CoDiLoss(**SETTINGS, data_space="pixel"), Needs(target="target", decoder=True)),
    "reencoded": (
        CoDiLoss(**SETTINGS, data_space="reencoded"),
        Needs(target="target", decoder=True),
    ),
    "lpips": (
        CoDiLoss(**SETTINGS, data_space="lpips"),
        Needs(target="target", decoder=True, perceptual=True),
    ),
    "codi_guided": (
        CoDiLoss(**SETTINGS, guidance_range=(1.0, 2.0)),
        Needs(target="target", null=True, scale="offered"),
    ),
    "finetune": (DiffusionLoss(**SETTINGS), Needs()),
    "dropout": (DiffusionLoss(**SETTINGS, condition_dropout=0.5), Needs(null=True)),
    "cm": (ConsistencyLoss(**SETTINGS), CM),
    "cm_lpips": (
        ConsistencyLoss(**SETTINGS, distance="lpips"),
        Needs(target="target", teacher="start", decoder=True, perceptual=True),
    ),
    "cm_guided": (
        ConsistencyLoss(**SETTINGS, guidance_range=(1.0, 2.0)),
        Needs(target="target", teacher="start", null=True, scale="offered"),
    ),
    "guided": (GuidedLoss(**SETTINGS), Needs(teacher="start", null=True, scale="required")),
    "autoencoder": (AutoencoderLoss(), Needs(latents=False)),
}


def spied_networks(needs: Needs, called: set[str], scales: list[bool]) -> Networks:
    """The networks that ``needs`` asks for; the others are left out."""

    def spy(name, function):
        def call(*arguments):
            called.add(name)
            return function(*arguments)

        return call

    def predict(params, z, t, cond):
        called.add("target" if params is TARGET else "online")
        scales.append("guidance_scale" in cond)
        return network(PARAMS, z, t.astype(jnp.float32), cond["c"])

    def nothing(cond):
        return {**cond, "c": 0 * cond["c"]}

    offered = {}
    if needs.teacher:
        offered["teacher"] = spy("teacher", lambda z, t, cond: 0.3 * z)
    if needs.null:
        offered["null"] = spy("null", nothing)
    if needs.decoder:
        offered["decode"] = spy("decoder", lambda z: z)
        offered["encode"] = spy("decoder", lambda y: y)
    if needs.perceptual:
        offered["perceptual"] = spy("perceptual", lambda a, b: (a - b).mean(axis=(1, 2, 3)))
    if needs.latents:
        offered["predict"] = predict
    else:
        moments = jnp.zeros((6, 1, 1, 1))
        offered["reconstruct"] = spy("reconstruct", lambda p, x, key: (0.5 * x, moments, moments))
    return Networks(**offered)


@pytest.mark.parametrize("name", [*LOSSES, "progressive", "progressive_guided"])
def test_a_loss_calls_what_it_says_that_it_needs(name: str) -> None:
    if name.startswith("progressive"):
        guidance = (1.0, 2.0) if name.endswith("guided") else None
        loss = ProgressiveLoss(
            **SETTINGS, initial_steps=2, steps_per_stage=1, guidance_range=guidance
        )
        scale = "required" if guidance else None
        expected = Needs(target="teacher", target_decay=loss.teacher_decay, scale=scale)
    else:
        loss, expected = LOSSES[name]
    assert loss.needs == expected
    called: set[str] = set()
    scales: list[bool] = []
    batch = make_batch() | {"images": jnp.ones((6, 3, 2, 4))}
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    loss(spied_networks(expected, called, scales), PARAMS, TARGET, batch, context)
    wanted = {"online" if expected.latents else "reconstruct"}
    wanted |= {part for part in ("target", "teacher", "null", "decoder", "perceptual")
               if getattr(expected, part)}  # fmt: skip
    assert called == wanted
    assert set(scales) <= {expected.scale is not None}


def test_what_is_not_asked_for_raises_with_its_name() -> None:
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    with pytest.raises(ValueError, match="calls predict: its `needs` must say so"):
        LOSSES["codi"][0](Networks(), PARAMS, PARAMS, make_batch(), context)


@pytest.mark.parametrize("shared", [True, False])
def test_parts_of_a_batch_have_their_own_noise_and_share_times_on_demand(shared: bool) -> None:
    context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
    keys = [context._replace(part=jnp.asarray(i)).keys(shared_time=shared) for i in (0, 1, 2)]
    times, noise = (
        {tuple(jax.random.key_data(k).tolist()) for k in ks} for ks in zip(*keys, strict=True)
    )
    assert len(noise) == 3 and len(times) == (1 if shared else 3)
    assert not times & noise
    whole = context.keys(shared_time=shared)
    assert tuple(jax.random.key_data(whole[0]).tolist()) in times or not shared


def test_parts_of_a_codi_batch_share_t_and_not_the_noise() -> None:
    seen = []

    def predict(params, z, t, cond):
        seen.append((np.asarray(t), np.asarray(z)))
        return z

    for time_per in ("batch", "sample"):
        loss = CoDiLoss(**SETTINGS, time_per=time_per)
        for part in (0, 1):
            context = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32), jnp.asarray(part))
            loss(Networks(predict), {}, {}, make_batch(), context)
    (t_0, z_0), _, (t_1, z_1), _, (u_0, _), _, (u_1, _), _ = seen
    np.testing.assert_array_equal(t_0, t_1)
    assert not np.array_equal(z_0, z_1)
    assert not np.array_equal(u_0, u_1)


def loss_named(name: str):
    if name.startswith("progressive"):
        return ProgressiveLoss(**SETTINGS, initial_steps=2, steps_per_stage=1)
    return LOSSES[name][0]


@pytest.mark.parametrize("name", ["codi", "ddim", "cm", "guided", "progressive"])
def test_neither_the_target_nor_the_teacher_has_a_gradient(name: str) -> None:
    loss = loss_named(name)
    context = StepContext(jax.random.key(1), jnp.zeros((), jnp.int32))

    def total(params, target, teacher):
        def call_teacher(z, t, cond):
            return network(teacher, z, t.astype(jnp.float32), cond["c"])

        def predict(p, z, t, cond):
            return network(p, z, t.astype(jnp.float32), cond["c"])

        def nothing(cond):
            return {**cond, "c": 0 * cond["c"]}

        networks = Networks(predict=predict, teacher=call_teacher, null=nothing)
        return loss(networks, params, target, make_batch(), context)["loss"].sum()

    grad, target, teacher = jax.grad(total, argnums=(0, 1, 2))(PARAMS, TARGET, TARGET)
    assert abs(float(grad["w"])) > 1e-3
    assert target == {"w": 0.0, "b": 0.0} and teacher == {"w": 0.0, "b": 0.0}


def test_noise_is_independent_of_the_scale_and_of_the_times() -> None:
    """Each draw has a key of its own: with a shared one they would be functions of each other."""
    loss = CoDiLoss(**SETTINGS, guidance_range=(0.0, 1.0))
    context = StepContext(jax.random.key(1), jnp.zeros((), jnp.int32))
    batch = {"latents": jnp.zeros((64, 1)), "cond": {}}
    keys = []

    def times(key, size):
        keys.append(key)
        return loss.any_time(key, size)

    noisy = loss.noisy(batch, context, times, guidance_range=(0.0, 1.0))
    _, key_eps = context.keys(shared_time=False)
    np.testing.assert_array_equal(noisy.eps, jax.random.normal(key_eps, (64, 1)))
    drawn = [jax.random.key_data(key).tolist() for key in (*keys, key_eps, noisy.key)]
    assert len({tuple(key) for key in drawn}) == 3
    np.testing.assert_array_equal(noisy.scale, jax.random.uniform(noisy.key, (64,)))

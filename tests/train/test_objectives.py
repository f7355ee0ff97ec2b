"""What a loss gets of a batch: latents, condition, and the networks that it asks for."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from codi_jax.distill.loss import Loss, Needs, StepContext
from codi_jax.train.objectives import autoencoder_objective, diffusion_objective
from codi_jax.train.state import create_state
from codi_jax.train.step import make_step

NOTHING = Needs()
CONTEXT = StepContext(jax.random.key(0), jnp.zeros((), jnp.int32))
BATCH = {"image": jnp.asarray(np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3))}
SIGNED = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class ToyUNet:
    """``unet * z + adapter``: one number each."""

    adapter: str = "mix"

    def without_adapter(self) -> "ToyUNet":
        return ToyUNet(adapter="none")

    def predict(self, params: Any, z_t: Any, t: Any, cond: Any) -> Any:
        del t, cond
        output = params["unet"]["w"] * z_t
        return output if self.adapter == "none" else output + params["adapter"]["v"]


class ToyVae:
    """Multiplies by its parameter."""

    def apply(self, variables: Any, x: Any, key: Any = None, *, method: str = "__call__") -> Any:
        scale = variables["params"]["s"]
        if method == "__call__":
            return scale * x, x, key
        return (scale * x if method == "encode" else x / scale).astype(jnp.bfloat16)


class ToyLpips:
    def apply(self, variables: Any, a: Any, b: Any) -> Any:
        return variables["params"]["k"] * jnp.abs(a - b).mean(axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spy(Loss):
    """Shows the data, and calls what it asks for."""

    asks: Needs = NOTHING

    @property
    def needs(self) -> Needs:
        return self.asks

    def __call__(self, networks: Any, params: Any, target: Any, batch: Any, context: Any) -> Any:
        z, t, cond = batch["latents"].astype(jnp.float32), jnp.zeros(2), batch["cond"]
        seen = {**batch, "online": networks.predict(params, z, t, cond)}
        seen["loss"] = (seen["online"] ** 2).mean(axis=(1, 2, 3))
        if self.asks.teacher:
            seen["teacher"] = networks.teacher(z, t, cond)
        if self.asks.null:
            seen["null"] = networks.null({**cond, "guidance_scale": jnp.ones(2)})
        if self.asks.decoder:
            seen["decoded"], seen["encoded"] = networks.decode(z), networks.encode(z)
        if self.asks.perceptual:
            seen["perceptual"] = networks.perceptual(batch["images"], 0 * batch["images"])
        return seen


def condition(vae: Any, vae_params: Any, batch: Any) -> Any:
    return {"latents": vae_params["s"] * jnp.ones((2, 2, 2, 1))}


def params(w: float = 2.0, v: float = 0.5, **teacher: Any) -> Any:
    tree = {"unet": {"w": jnp.asarray(w)}, "adapter": {"v": jnp.asarray(v)}}
    tree |= {"vae": {"s": jnp.asarray(4.0)}, "lpips": {"k": jnp.asarray(3.0)}}
    return tree | ({"teacher": teacher} if teacher else {})


def objective(asks: Needs = NOTHING) -> Any:
    spy = Spy(asks=asks)
    return diffusion_objective(ToyUNet(), ToyVae(), spy, condition, lpips=ToyLpips())


def test_latents_condition_and_pictures_of_a_batch() -> None:
    prompted = {**params(), "prompt": {"text": jnp.asarray([[7.0, 8.0]])}}
    seen = objective()(prompted, {}, BATCH, CONTEXT)
    np.testing.assert_allclose(seen["images"], SIGNED, atol=1e-6)
    np.testing.assert_allclose(seen["latents"], 4 * SIGNED, rtol=1e-2)
    np.testing.assert_array_equal(seen["cond"]["text"], [[7, 8], [7, 8]])
    np.testing.assert_array_equal(seen["cond"]["latents"], np.full((2, 2, 2, 1), 4.0))
    own = {**BATCH, "text": jnp.ones((2, 2)), "latents": jnp.full((2, 1, 1, 1), 9.0)}
    seen = objective()(prompted, {}, own, CONTEXT)
    np.testing.assert_array_equal(seen["cond"]["text"], np.ones((2, 2)))
    np.testing.assert_array_equal(seen["latents"], own["latents"])


def test_networks_that_are_asked_for() -> None:
    asks = Needs(null=True, decoder=True, perceptual=True)
    seen = objective(asks)(params(), {}, BATCH, CONTEXT)
    latents = np.asarray(seen["latents"], np.float32)
    for name, expected in (("encoded", 4 * latents), ("decoded", latents / 4)):
        assert seen[name].dtype == jnp.float32
        np.testing.assert_allclose(seen[name], expected, rtol=1e-2)
    np.testing.assert_allclose(
        seen["perceptual"], 3 * np.abs(SIGNED).mean(axis=(1, 2, 3)), rtol=1e-5
    )
    # Without a prompt the null condition has zeros for the picture; with one, another text.
    assert not seen["null"]["latents"].any() and seen["null"]["guidance_scale"].all()
    texts = {"prompt": {"text": jnp.ones((1, 2))}, "null_prompt": {"text": jnp.zeros((1, 2))}}
    null = objective(asks)({**params(), **texts}, {}, BATCH, CONTEXT)["null"]
    assert null["text"].shape == (2, 2) and not null["text"].any()
    np.testing.assert_array_equal(null["latents"], np.full((2, 2, 2, 1), 4.0))


@pytest.mark.parametrize(
    ("kind", "kept", "expected"),
    [
        ("start", {"unet": {"w": 2.0}, "adapter": {"v": 0.5}}, (2.0, 0.5)),
        ("start", {"adapter": {"v": 0.5}}, (5.0, 0.5)),  # the U-Net is frozen, hence shared
        ("prior", {"unet": {"w": 2.0}}, (2.0, 0.0)),
        ("prior", {}, (5.0, 0.0)),
    ],
)
def test_the_teacher_is_the_start_whatever_the_student_has_become(
    kind: Any, kept: Any, expected: tuple[float, float]
) -> None:
    kept = jax.tree.map(jnp.asarray, kept)
    seen = objective(Needs(teacher=kind))(params(5.0, 1.5, **kept), {}, BATCH, CONTEXT)
    z = np.asarray(seen["latents"], np.float32)
    np.testing.assert_allclose(seen["online"], 5 * z + 1.5, rtol=1e-5)
    np.testing.assert_allclose(seen["teacher"], expected[0] * z + expected[1], rtol=1e-5)


def test_the_teacher_stays_while_the_student_trains() -> None:
    spied = objective(Needs(teacher="start"))

    def losses(p: Any, target: Any, batch: Any, context: Any) -> Any:
        seen = spied(p, target, batch, context)
        return {"loss": seen["loss"], "teacher": seen["teacher"], "online": seen["online"]}

    start = params()
    trainable = {part: start[part] for part in ("unet", "adapter")}
    frozen = {"vae": start["vae"], "teacher": jax.tree.map(jnp.copy, trainable)}
    optimizer = optax.sgd(0.1)
    state, step = create_state(trainable, optimizer, ()), make_step(losses, optimizer, {})
    found = []
    for _ in range(2):
        state, metrics = step(state, frozen, BATCH, jax.random.key(0))
        found.append((float(metrics["teacher"]), float(metrics["online"])))
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]


def test_the_autoencoder_reconstructs_the_pictures() -> None:
    class Reconstruction(Spy):
        def __call__(self, networks: Any, p: Any, target: Any, batch: Any, context: Any) -> Any:
            reconstruction, images, key = networks.reconstruct(p, batch["images"], context.key)
            return {"loss": reconstruction, "images": images, "key": key}

    seen = autoencoder_objective(ToyVae(), Reconstruction())(params(), {}, BATCH, CONTEXT)
    np.testing.assert_allclose(seen["images"], SIGNED, atol=1e-6)
    np.testing.assert_allclose(seen["loss"], 4 * SIGNED, atol=1e-5)
    assert seen["key"] is CONTEXT.key

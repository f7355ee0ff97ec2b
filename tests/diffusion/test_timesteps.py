"""Times of the sampler by hand; tests/parity compares them with diffusers'."""

import numpy as np
import pytest

from codi_jax.diffusion.timesteps import (
    TIMESTEP_SPACINGS,
    consistency_timesteps,
    inference_timesteps,
)
from codi_jax.typing import UserError


@pytest.mark.parametrize(("steps", "expected"), [(1, [999]), (2, [999, 499]), (3, [999, 666, 332])])
def test_trailing(steps, expected):
    for endpoint in (True, False):
        times = inference_timesteps(1000, steps, endpoint=endpoint)
        assert times.dtype == np.int32 and times.tolist() == expected


def test_other_spacings():
    assert inference_timesteps(1000, 4, "leading").tolist() == [750, 500, 250, 0]
    assert inference_timesteps(1000, 4, "leading", 1).tolist() == [751, 501, 251, 1]
    assert inference_timesteps(1000, 4, "linspace").tolist() == [999, 666, 333, 0]
    without = {"endpoint": False}
    assert inference_timesteps(1000, 3, "leading", **without).tolist() == [750, 500, 250]
    assert inference_timesteps(1000, 3, "leading", 1, **without).tolist() == [751, 501, 251]
    assert inference_timesteps(1000, 3, "linspace", **without).tolist() == [999, 666, 333]


@pytest.mark.parametrize("endpoint", [True, False])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_every_number_of_steps_gives_that_many_descending_times(spacing, endpoint):
    for steps in range(1, 1000):
        times = inference_timesteps(1000, steps, spacing, endpoint=endpoint)
        assert times.shape == (steps,) and np.all(np.diff(times) < 0)
        assert times[-1] >= 0 and times[0] <= 999


def test_bad_timesteps_are_refused():
    with pytest.raises(UserError, match="num_inference_steps=0"):
        inference_timesteps(1000, 0)
    with pytest.raises(UserError, match="num_inference_steps=1001.* 1 and 1000"):
        inference_timesteps(1000, 1001)
    with pytest.raises(UserError, match="num_inference_steps=1000.* 1 and 999"):
        inference_timesteps(1000, 1000, "linspace", endpoint=False)
    with pytest.raises(UserError, match="trailing, leading, linspace"):
        inference_timesteps(1000, 4, "sgm_uniform")
    with pytest.raises(UserError, match="steps_offset=1"):
        inference_timesteps(1000, 1000, "leading", 1)


def test_consistency_timesteps():
    assert consistency_timesteps(1000, 4, 50).tolist() == [999, 759, 499, 259]
    assert consistency_timesteps(100, 2, 2).tolist() == [99, 49]
    with pytest.raises(UserError, match="original_inference_steps=101.*num_train_timesteps=100"):
        consistency_timesteps(100, 1, 101)
    for steps in (0, 51):
        with pytest.raises(UserError, match=f"num_inference_steps={steps} .* 50 .*consistency"):
            consistency_timesteps(1000, steps, 50)

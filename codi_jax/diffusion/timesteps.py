"""The times at which a sampler calls the network, equal to those of PyTorch diffusers."""

import numpy as np
from jaxtyping import Int

from codi_jax.typing import UserError, check_choice

TIMESTEP_SPACINGS = ("trailing", "leading", "linspace")


def inference_timesteps(
    num_train_timesteps: int,
    num_inference_steps: int,
    spacing: str = "trailing",
    steps_offset: int = 0,
    *,
    endpoint: bool = True,
) -> Int[np.ndarray, " {num_inference_steps}"]:
    """Evenly spaced times (Lin et al. 2023, table 2).

    * "trailing": ``round(N - i N / n) - 1``. The only one that starts at the noisiest level
      whatever the number of steps, which few-step sampling needs.
    * "leading": ``i (N // p) + steps_offset``, Stable Diffusion's setting with offset 1.
    * "linspace": p points from 0 to N - 1.

    The number of points p is n when the network is also called at the lowest of them, as
    DDIM, PNDM and Euler do, and n + 1 when the lowest is left out, as DPM-Solver does.

    Args:
        num_train_timesteps: N.
        num_inference_steps: n, in [1, N]; less than N where p is n + 1.
        spacing: one of `TIMESTEP_SPACINGS`.
        steps_offset: added to the times of "leading"; not used by the other two.
        endpoint: whether the network is called at the lowest point; "trailing" has none to
            leave out.

    Returns:
        Descending int32 [n], in [0, N - 1], no two the same.

    Raises:
        UserError: unknown spacing, or a number of steps or an offset out of range.
    """
    check_choice("timestep_spacing", spacing, TIMESTEP_SPACINGS)
    n_train, n_steps = num_train_timesteps, num_inference_steps
    points = n_steps if endpoint or spacing == "trailing" else n_steps + 1
    if n_steps < 1 or points > n_train:
        raise UserError(
            f"num_inference_steps={n_steps} must be between 1 and {n_train - (points - n_steps)} "
            f"with timestep_spacing={spacing!r}."
        )
    if spacing == "trailing":
        # arange, because halves must be rounded as diffusers rounds them; cut to n, because
        # for some n (61 of 1000) rounding errors give it one time more, t = -1.
        times = np.round(np.arange(n_train, 0, -n_train / n_steps)) - 1
    elif spacing == "leading":
        times = (np.arange(points) * (n_train // points))[::-1] + steps_offset
    else:
        times = np.linspace(0, n_train - 1, points).round()[::-1]
    times = times[:n_steps]
    if times.min() < 0 or times.max() >= n_train:
        raise UserError(
            f"steps_offset={steps_offset} with {n_steps} {spacing} steps gives timesteps outside "
            f"0..{n_train - 1}: set steps_offset=0 or use timestep_spacing='trailing'."
        )
    return times.astype(np.int32)


def consistency_timesteps(
    num_train_timesteps: int, num_inference_steps: int, original_inference_steps: int
) -> Int[np.ndarray, " {num_inference_steps}"]:
    """The times of diffusers' ``LCMScheduler``: n of the m times that the model was distilled at.

    Args:
        num_train_timesteps: N.
        num_inference_steps: n, in [1, m].
        original_inference_steps: m, in [1, N]; its times are ``i (N // m) - 1`` for i = 1 ... m.

    Returns:
        Descending int32 [n], in [0, N - 1], no two the same.

    Raises:
        UserError: a number of steps out of range.
    """
    n, m = num_inference_steps, original_inference_steps
    if m > num_train_timesteps:
        raise UserError(
            f"original_inference_steps={m} must be at most num_train_timesteps="
            f"{num_train_timesteps}."
        )
    if not 1 <= n <= m:
        raise UserError(
            f"num_inference_steps={n} must be between 1 and {m} with solver='consistency' and "
            f"original_inference_steps={m}."
        )
    # In floats as diffusers does it: their rounding decides for a few n (33 of 45).
    skipped = np.floor(np.linspace(0, m, n, endpoint=False))
    return ((m - skipped) * (num_train_timesteps // m) - 1).astype(np.int32)

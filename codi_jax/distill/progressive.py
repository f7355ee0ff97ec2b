"""Guided and progressive distillation (Meng et al. 2023; Salimans & Ho 2022): the paper's GD.

Both fit ``x_hat`` to a target ``x~`` that a teacher gives, weighted by SNR + 1:

    L = (alpha_t^2 / sigma_t^2 + 1) |x_hat_theta - x~|^2 = |v_hat_theta - v~|^2

* guided, stage 1: ``x~`` is the teacher's prediction under classifier-free guidance by a random
  scale, which the student reads as an input;
* progressive, stage 2: ``x~`` is the prediction with which *one* DDIM step of the student ends
  where two half steps of the teacher end. At the end of each stage the student becomes the
  teacher of the next student, which has half as many steps.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from codi_jax.diffusion.schedules import expand
from codi_jax.distill.base import LatentLoss, Noisy, check_grid, check_range, grid_time
from codi_jax.distill.distances import distance
from codi_jax.distill.loss import Batch, Needs, Networks, StepContext
from codi_jax.typing import Array, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedLoss(LatentLoss):
    """Stage 1 of guided distillation (Meng et al. 2023, section 3.1), at uniform times.

    Attributes:
        guidance_range: (lowest, highest) scale, drawn uniformly per sample; 1 is no guidance.

    Raises:
        UserError: see `LatentLoss`; or a range that is not one.
    """

    guidance_range: tuple[float, float] = (1.0, 4.0)

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        super().__post_init__()
        check_range(self.guidance_range)

    @property
    def needs(self) -> Needs:
        """The teacher under guidance, and a network that reads the scale."""
        return Needs(teacher="start", null=True, scale="required")

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """See `Loss`.

        Returns:
            "loss", float32 [B].
        """
        del target_params
        noisy = self.noisy(batch, context, self.any_time, guidance_range=self.guidance_range)
        (t,) = noisy.times
        output = networks.guided_teacher(noisy.z_t, t, noisy.cond, noisy.scale)
        x_target, _ = self.x_eps(output, noisy.z_t, t)
        return {"loss": _v_loss(self, networks, params, noisy, x_target)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressiveLoss(LatentLoss):
    """Progressive distillation; the stage follows from the step.

    In stage k the student has ``N_k = initial_steps / 2^k`` sampling steps, down to
    ``final_steps``. The times are those of N_k "trailing" steps, one draw per sample.
    ``target_params`` is the *teacher*. It is kept as an average whose `teacher_decay` is 1, so
    that it stays as it is, except at the end of each stage: there the decay is 0, and it becomes
    the student.

    Attributes:
        initial_steps: N_0; the first teacher takes twice as many. A power of two times
            ``final_steps``.
        steps_per_stage: training steps of a stage. The last stage lasts until the run ends.
        final_steps: where the halving ends.
        guidance_range: see `GuidedLoss`, for a network that reads the scale; None for others.

    Raises:
        UserError: see `LatentLoss`; or a number that does not fit.
    """

    initial_steps: int
    steps_per_stage: int
    final_steps: int = 1
    guidance_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are the class's."""
        super().__post_init__()
        check_grid("initial_steps", self.initial_steps, self.schedule.num_train_timesteps // 2)
        check_range(self.guidance_range)
        if self.steps_per_stage < 1:
            raise UserError(f"steps_per_stage={self.steps_per_stage} must be at least 1.")
        if self.final_steps < 1 or self.final_steps << self.last_stage != self.initial_steps:
            raise UserError(
                f"initial_steps={self.initial_steps} must be a power of two times "
                f"final_steps={self.final_steps}."
            )

    @property
    def needs(self) -> Needs:
        """The teacher as an average that changes at the end of each stage."""
        return Needs(
            target="teacher",
            target_decay=self.teacher_decay,
            scale=None if self.guidance_range is None else "required",
        )

    @property
    def last_stage(self) -> int:
        """Number of halvings."""
        return max(self.initial_steps // max(self.final_steps, 1), 1).bit_length() - 1

    def student_steps(self, step: Int[Array, ""]) -> Int[Array, ""]:
        """Sampling steps N_k of the student in the training step ``step``."""
        stage = jnp.minimum(step // self.steps_per_stage, self.last_stage)
        return jnp.right_shift(jnp.asarray(self.initial_steps, jnp.int32), stage)

    def teacher_decay(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Decay of the teacher's average.

        Args:
            step: number of steps done, int32 scalar.

        Returns:
            0.0 at the end of a stage, when the student becomes the teacher, else 1.0.
        """
        ended = step // self.steps_per_stage
        becomes = (step % self.steps_per_stage == 0) & (ended >= 1) & (ended <= self.last_stage)
        return jnp.where(becomes, 0.0, 1.0)

    def __call__(
        self,
        networks: Networks,
        params: Params,
        target_params: Params,
        batch: Batch,
        context: StepContext,
    ) -> dict[str, Float[Array, " batch"]]:
        """See `Loss`; ``target_params`` is the teacher.

        Returns:
            "loss", float32 [B], and "student_steps", N_k for each.
        """
        n = self.student_steps(context.step)
        noisy = self.noisy(
            batch, context, partial(self._times, n), guidance_range=self.guidance_range
        )
        t, middle, s = noisy.times
        z = noisy.z_t
        for start, end in ((t, middle), (middle, s)):
            output = networks.predict(target_params, z, start, noisy.cond)
            z = self.ddim(self.x_eps(output, z, start), end)
        x_target = two_step_target(
            noisy.z_t, z, *self.schedule.alpha_sigma(t), *self.schedule.alpha_sigma(s)
        )
        loss = _v_loss(self, networks, params, noisy, x_target)
        return {"loss": loss, "student_steps": jnp.broadcast_to(n, loss.shape).astype(jnp.float32)}

    def _times(
        self, n: Int[Array, ""], key: Key[Array, ""], size: int
    ) -> tuple[Int[Array, " batch"], ...]:
        """A step's start, middle and end, of n steps; the end of the last is -1, clean data."""
        i = jax.random.randint(key, (size,), 1, n + 1, jnp.int32)
        total = self.schedule.num_train_timesteps
        return tuple(grid_time(total, 2 * n, j) for j in (2 * i, 2 * i - 1, 2 * i - 2))


def two_step_target(
    z_t: Float[Array, " batch *latent"],
    z_s: Float[Array, " batch *latent"],
    alpha_t: Float[Array, " batch"],
    sigma_t: Float[Array, " batch"],
    alpha_s: Float[Array, " batch"],
    sigma_s: Float[Array, " batch"],
) -> Float[Array, " batch *latent"]:
    """``x~`` whose DDIM step from ``z_t`` ends in ``z_s`` (Salimans & Ho 2022, algorithm 2).

    Args:
        z_t: start of the step.
        z_s: its end.
        alpha_t: signal level of the start.
        sigma_t: noise level of the start, > 0.
        alpha_s: signal level of the end.
        sigma_s: noise level of the end, ``sigma_s / sigma_t < alpha_s / alpha_t``.
    """
    ratio = sigma_s / sigma_t
    return (z_s - expand(ratio, z_t) * z_t) / expand(alpha_s - ratio * alpha_t, z_t)


def _v_loss(
    loss: LatentLoss,
    networks: Networks,
    params: Params,
    noisy: Noisy,
    x_target: Float[Array, " batch *latent"],
) -> Float[Array, " batch"]:
    z_t, t = noisy.z_t, noisy.times[0]
    x_hat, _ = loss.x_eps(networks.predict(params, z_t, t, noisy.cond), z_t, t)
    _, sigma_t = loss.schedule.alpha_sigma(t)
    # z_t is the same on both sides, so v_hat - v~ is (x~ - x_hat) / sigma_t.
    return distance("l2", x_hat, jax.lax.stop_gradient(x_target)) / sigma_t**2

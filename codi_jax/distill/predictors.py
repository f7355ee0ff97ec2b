"""How the earlier latent ``z_s`` on the trajectory of ``z_t`` is predicted (paper, section 4.2).

===========  =============================================  =================================
name         ``z_s``                                        source
===========  =============================================  =================================
"prev"       ``alpha_s x_hat_t + sigma_s eps``              PREv, eq. 12: the true noise
"ddim_v"     ``alpha_s x_hat_t + sigma_s eps_hat_t``        eq. 8
"ddim"       the same, both hats from the frozen prior      eq. 6
"euler"      ``z_t + (phi_s - phi_t) v_hat_t``              Euler step of eq. 5
===========  =============================================  =================================

The Euler step of consistency models (Song et al. 2023). In a VP process write
``alpha = cos(phi)``, ``sigma = sin(phi)``. Then ``f = d log(alpha)/dt = -tan(phi) phi'`` and
``g^2 = d sigma^2/dt - 2 f sigma^2 = 2 tan(phi) phi'``, and with the score (eq. 4), equal to
``-eps_hat / sigma``, the right side of eq. 5 is ``phi' (alpha eps_hat - sigma x_hat)``. So the
ODE is ``dz/dphi = v_hat``: no term is singular, not even at alpha = 0, and the Euler step is the
one above. DDIM is ``cos(phi_s - phi_t) z_t + sin(phi_s - phi_t) v_hat_t``; the two differ by a
term of second order in the step. (In Song et al.'s own coordinates, ``z / alpha`` over
``sigma / alpha``, the Euler step *is* DDIM, hence "ddim_v".)
"""

import jax.numpy as jnp
from jaxtyping import Float

from codi_jax.diffusion.parameterization import from_x_eps
from codi_jax.diffusion.schedules import expand
from codi_jax.diffusion.solvers import ddim_step
from codi_jax.typing import Array, UserError, check_choice

PREDICTORS = ("prev", "ddim_v", "ddim", "euler")


def predict_z_s(
    name: str,
    *,
    z_t: Float[Array, " batch *latent"],
    eps: Float[Array, " batch *latent"],
    x_hat_t: Float[Array, " batch *latent"],
    eps_hat_t: Float[Array, " batch *latent"],
    alpha_t: Float[Array, "..."],
    sigma_t: Float[Array, "..."],
    alpha_s: Float[Array, "..."],
    sigma_s: Float[Array, "..."],
    teacher_x_eps: tuple[Float[Array, " batch *latent"], Float[Array, " batch *latent"]]
    | None = None,
) -> Float[Array, " batch *latent"]:
    """The earlier latent ``z_s``. Stopping its gradient is left to the caller.

    Args:
        name: one of `PREDICTORS`.
        z_t: noisy latents, float32 [B, ...].
        eps: the noise that made ``z_t``.
        x_hat_t: signal prediction of the online network at ``z_t``.
        eps_hat_t: its noise prediction.
        alpha_t: [B] or expanded, like the following three.
        sigma_t: noise level of ``t``.
        alpha_s: signal level of ``s < t``.
        sigma_s: noise level of ``s``.
        teacher_x_eps: ``(x_hat, eps_hat)`` of the frozen prior at ``z_t``; read by "ddim" only.

    Raises:
        UserError: unknown name, or "ddim" without ``teacher_x_eps``.
    """
    check_choice("predictor", name, PREDICTORS)
    if name == "prev":
        return ddim_step(x_hat_t, eps, alpha_s, sigma_s)
    if name == "ddim_v":
        return ddim_step(x_hat_t, eps_hat_t, alpha_s, sigma_s)
    if name == "ddim":
        if teacher_x_eps is None:
            raise UserError(
                "predictor='ddim' integrates with the frozen prior: pass teacher, or choose "
                "predictor='prev' or 'ddim_v', which use the network that is trained."
            )
        return ddim_step(*teacher_x_eps, alpha_s, sigma_s)
    angle = jnp.arctan2(sigma_s, alpha_s) - jnp.arctan2(sigma_t, alpha_t)
    v_hat = from_x_eps("v_prediction", x_hat_t, eps_hat_t, alpha_t, sigma_t)
    return z_t + expand(angle, z_t) * v_hat

"""One hub for what a network predicts: every output becomes ``(x_hat, eps_hat)``.

==================  =======================  ====================================
prediction_type     network output           source
==================  =======================  ====================================
"v_prediction"      ``alpha eps - sigma x``  paper, eq. 7 (Salimans & Ho 2022)
"epsilon"           ``eps``                  Ho et al. 2020
"sample"            ``x``                    signal prediction, paper, section 2
==================  =======================  ====================================

All three satisfy ``z_t = alpha_t x_hat + sigma_t eps_hat``. ``alpha`` and ``sigma`` may be
scalars, [B], or already expanded to the rank of ``z_t``. Arrays are float32.
"""

from jaxtyping import Array, Float

from codi_jax.diffusion.schedules import Schedule, expand
from codi_jax.typing import UserError, check_choice

PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")


def check_prediction_type(schedule: Schedule, prediction_type: str) -> None:
    """Refuses names that do not exist and combinations that cannot work.

    Raises:
        UserError: unknown ``prediction_type``, or "epsilon" with a schedule whose last alpha
            is 0: there ``z_t = eps``, and x cannot be recovered from it.
    """
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    if prediction_type == "epsilon" and schedule.zero_terminal_snr:
        raise UserError(
            "prediction_type='epsilon' cannot work with a schedule of zero terminal SNR "
            "(rescale_betas_zero_snr=True): at the last timestep the noise says nothing about "
            "the image. Use v_prediction, or set rescale_betas_zero_snr=False."
        )


def to_x_eps(
    prediction_type: str,
    output: Float[Array, "*latents"],
    z_t: Float[Array, "*latents"],
    alpha_t: Float[Array, "..."] | float,
    sigma_t: Float[Array, "..."] | float,
) -> tuple[Float[Array, "*latents"], Float[Array, "*latents"]]:
    """The signal and the noise that a network's output stands for (eq. 7 for velocity).

    Args:
        prediction_type: one of `PREDICTION_TYPES`.
        output: the network's output, float32 [B, ...].
        z_t: the noisy latents that it was computed from, same shape.
        alpha_t: see the module's docstring; > 0 for "epsilon".
        sigma_t: likewise; > 0 for "sample".

    Returns:
        ``(x_hat, eps_hat)``, shaped like ``z_t``.

    Raises:
        UserError: unknown ``prediction_type``.
    """
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    alpha_t, sigma_t = expand(alpha_t, z_t), expand(sigma_t, z_t)
    if prediction_type == "v_prediction":
        return alpha_t * z_t - sigma_t * output, alpha_t * output + sigma_t * z_t
    if prediction_type == "epsilon":
        return (z_t - sigma_t * output) / alpha_t, output
    return output, (z_t - alpha_t * output) / sigma_t


def from_x_eps(
    prediction_type: str,
    x_hat: Float[Array, "*latents"],
    eps_hat: Float[Array, "*latents"],
    alpha_t: Float[Array, "..."] | float,
    sigma_t: Float[Array, "..."] | float,
) -> Float[Array, "*latents"]:
    """The network output that stands for ``(x_hat, eps_hat)``: the inverse of `to_x_eps`.

    With the true ``x`` and ``eps`` it is the regression target of ordinary training.

    Raises:
        UserError: unknown ``prediction_type``.
    """
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    if prediction_type == "v_prediction":
        return expand(alpha_t, x_hat) * eps_hat - expand(sigma_t, x_hat) * x_hat
    return eps_hat if prediction_type == "epsilon" else x_hat

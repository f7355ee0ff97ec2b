"""What the configs of the conditional tasks share. Not a config itself."""

from ml_collections import ConfigDict

from configs.base import base
from configs.methods import METHODS, apply_method
from configs.sr import CHECKPOINTS, make_full_size, make_tiny

VARIANTS = ("default", "tiny", *CHECKPOINTS)


def conditional(task: str, variants: str) -> ConfigDict:
    """CoDi of ``task`` with the embedded prior in minutes on a CPU, or changes of that: one of
    :data:`VARIANTS` or of the methods, or several with commas between.

    Raises:
        ValueError: no such variant.
    """
    config = base()
    config.task = task
    config.data.scale = 1
    config.steps, config.batch_size = 300, 16
    config.model.pretrained, config.model.adapter = "prior", "mix"
    config.optim.learning_rate = 1e-3
    config.optim.decay = "cosine"
    config.optim.mu_multiplier = 20.0
    config.ema.eval = 0.98
    config.eval.every = config.checkpoint.every = 150
    apply_method(config, "codi")
    for variant in variants.split(","):
        if variant in METHODS:
            apply_method(config, variant)
        elif variant == "tiny":
            make_tiny(config)
        elif variant in CHECKPOINTS:
            make_full_size(config, CHECKPOINTS[variant])
        elif variant != "default":
            known = ", ".join((*VARIANTS, *METHODS))
            raise ValueError(f"unknown variant {variant!r}: choose from {known}")
    return config


def with_text(variants: str) -> bool:
    """Whether a prior with a text encoder is among ``variants``."""
    return any(variant in CHECKPOINTS for variant in variants.split(","))

r"""The methods that the paper compares, and the presets of CoDi, as changes of a config.

    python -m codi_jax.main --config=configs/sr.py:cm_frozen --workdir=runs/cm_frozen \
        --config.model.pretrained=RUN/model

=================  ==========================================================================
codi               the paper's method: U-Net and adapter are trained
pe_codi            the same, parameter-efficient: the prior is frozen, the adapter is trained
finetune           LDM-SR, ControlNet: the ordinary diffusion loss, to be sampled in many steps
cm, cm_frozen      CM-II: consistency distillation of a fine-tuned model; frozen: the adapter
                   alone trains
guided             stage 1 of guided distillation: one network for all guidance scales
progressive        GD: progressive distillation, which halves the sampling steps again and again
paper              codi with the paper's setting: dt of one timestep
google_research    one t per picture, s = t - 1000/N, consistency in x
fast_codi          ControlNet on a frozen prior; a grid of 20 times, consistency in x with boundary
                   scalings, random guidance scales
=================  ==========================================================================

``cm``, ``cm_frozen``, ``guided`` and ``progressive`` start from an earlier run's model,
``--config.model.pretrained=RUN/model``: a frozen copy of it is the teacher. docs/method.md has the
commands of GD-I and GD-II.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

EVERYTHING, ADAPTER = "(unet|adapter)/.*", "adapter/.*"
STAGES = 5  # of progressive distillation: 16, 8, 4, 2 and 1 steps


def _set(
    config: ConfigDict, method: str, loss: Mapping[str, Any], trainable: str, target: float | None
) -> None:
    """``target``: decay of theta-, for the methods that have one."""
    config.method, config.loss = method, ConfigDict(dict(loss))
    config.model.trainable = trainable
    averages = {} if target is None else {"target": target}
    config.ema = ConfigDict({**averages, "eval": config.ema.eval})


def _codi(config: ConfigDict, trainable: str = EVERYTHING, **loss: Any) -> None:
    common = {
        "predictor": "prev",
        "data_weight": config.loss.get("data_weight", 1.0),
        "data_space": "latent",
        "lpips_weight": 0.0,
        "dt": config.loss.get("dt", 20),
        "time_per": config.loss.get("time_per", "batch"),
        "min_snr_gamma": config.loss.get("min_snr_gamma") or placeholder(float),
    }
    _set(config, "codi", {**common, **loss}, trainable, 0.95)


def _pe_codi(config: ConfigDict) -> None:
    _codi(config, ADAPTER)


def _paper(config: ConfigDict) -> None:
    _codi(config, dt=1, time_per="batch", data_weight=1.0, min_snr_gamma=placeholder(float))


def _google_research(config: ConfigDict) -> None:
    _codi(
        config,
        dt=20,
        time_per="sample",
        data_weight=1.0,
        min_snr_gamma=placeholder(float),
        consistency_space="x",
    )


def _fast_codi(config: ConfigDict) -> None:
    loss = {
        "predictor": "prev",
        "data_weight": 1.0,
        "grid_steps": 20,
        "consistency_space": "x",
        "timestep_scaling": 10.0,
        "guidance_range": (2.0, 13.0),
    }
    _set(config, "codi", loss, ADAPTER, 0.99995)
    config.model.adapter = "controlnet"


def _finetune(config: ConfigDict) -> None:
    _set(config, "finetune", {}, EVERYTHING, None)


def _cm(config: ConfigDict, trainable: str = EVERYTHING) -> None:
    _set(config, "consistency", {"grid_steps": 50, "distance": "l2"}, trainable, 0.95)


def _cm_frozen(config: ConfigDict) -> None:
    _cm(config, ADAPTER)


def _guided(config: ConfigDict) -> None:
    _set(config, "guided", {"guidance_range": (1.0, 4.0)}, EVERYTHING, None)
    config.model.time_cond_proj_dim = 256


def _progressive(config: ConfigDict) -> None:
    # A reference: it follows --config.steps.
    per_stage = config.get_ref("steps") // STAGES
    loss = {"initial_steps": 2 ** (STAGES - 1), "steps_per_stage": per_stage}
    if config.method == "guided":  # stage 2 after stage 1, "guided,progressive": the same scales
        loss["guidance_range"] = config.loss.guidance_range
    _set(config, "progressive", loss, EVERYTHING, None)
    config.optim.decay = "constant"  # the last stages are as long as the first


METHODS: dict[str, Callable[[ConfigDict], None]] = {
    "codi": _codi,
    "pe_codi": _pe_codi,
    "finetune": _finetune,
    "cm": _cm,
    "cm_frozen": _cm_frozen,
    "guided": _guided,
    "progressive": _progressive,
    "paper": _paper,
    "google_research": _google_research,
    "fast_codi": _fast_codi,
}


def apply_method(config: ConfigDict, name: str) -> None:
    """Change ``config`` to the method ``name``, one of :data:`METHODS`.

    Raises:
        ValueError: an unknown name.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    METHODS[name](config)
    config.label = "" if name == config.method else name

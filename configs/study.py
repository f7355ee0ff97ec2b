r"""The study: every method and every ablation, with one budget, on one set of photos.

Command:   python -m codi_jax.study --config=configs/study.py --workdir=runs/study \
               --config.run.data.source=TRAIN --config.run.data.eval_source=HELD_OUT
Hardware:  two CPU cores; any accelerator with more `--config.passes` and a larger
           `--config.run.batch_size`.
Time:      five to six hours on two cores, by its parts: 27 trainings of 5 to 8 minutes, then the
           scores. It goes on where it was stopped.
Expect:    WORKDIR/<stage>/ (one training run each), WORKDIR/rows/, WORKDIR/results.json, and the
           report docs/results.md with its pictures. Nothing is done twice.

LPIPS, as a score and as a distance to train with, needs `--config.eval.lpips=True` and its
networks (docs/metrics.md). Without them, the rows that train with it are left out. A folder of
photos that are scored whole, degraded and clean, is given by `--config.sets.whole.source=KODAK`.

Variants:  default, or tiny: the same with small networks, in about five minutes, for tests.

``passes`` is the budget of each method in U-Net passes (forward calls for one picture, all else
that a step computes counted in them, see ``codi_jax/run/passes.py``). ``stages`` are training runs:
what they start from ("" is the embedded prior), the method (a name of ``configs/methods.py``), the
parts of the budget that they get one of, and further settings. A method of two stages gets half of
the budget for each. ``rows`` are lines of the tables: which stage's model, sampled how, in how many
steps. They are scored on the pictures of ``sets.main``; the methods' in ``elsewhere.steps`` steps
on the other sets, too. ``peers`` are folders of other programs' results for the pictures of
WORKDIR/inputs/input, scored as ours are (docs/study.md).
"""

from functools import partial

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import sr
from configs.methods import ADAPTER, apply_method

FEW = (1, 2, 4, 8)


def get_config(variant: str = "default") -> ConfigDict:
    """``default`` or ``tiny``."""
    if variant not in ("default", "tiny"):
        raise ValueError(f"unknown variant {variant!r}: default or tiny")
    run = sr.get_config(variant)
    run.batch_size = 8
    run.eval.count, run.eval.steps, run.eval.beside = 4, (4,), ""
    run.eval.every = 10_000  # at the end alone
    run.checkpoint.every, run.checkpoint.keep = 200, 1
    photos = {"source": "", "count": 64, "size": 256}
    # The two sets of whole pictures share one source: setting that of the first sets both.
    whole = {"source": placeholder(str), "count": 0, "size": 0}
    config = ConfigDict(
        {
            "passes": 24_000,
            "run": run,
            "stages": _stages(run),
            "rows": _rows(),
            "peers": (),  # {"name": "StableSR", "images": DIR, "seconds": 9.5, "parameters": 10**9}
            # source: "" is the run's held-out photos; a set without one is left out.
            "sets": {
                "main": {**photos, "degradation": "realesrgan"},
                "clean": {**photos, "degradation": "bicubic"},
                "whole": {**whole, "degradation": "realesrgan"},
                "whole_clean": {**whole, "degradation": "bicubic"},
            },
            "elsewhere": {"steps": (4, 50)},
            "eval": {
                "batch": 16,
                "seed": 1,
                "lpips": False,  # judge by LPIPS; networks in run.model.lpips_weights
            },
            "shown": "skimage",  # the report's pictures: photos that may be published
            "report": "docs",  # folder of results.md and images/
        }
    )
    if variant == "tiny":
        _make_tiny(config)
    return config


def _linked(config: ConfigDict) -> ConfigDict:
    """A copy whose values follow ``config``'s, so that settings of the run reach every stage."""
    linked = ConfigDict()
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            linked[key] = _linked(value)
        else:
            linked[key] = None if value is None else config.get_ref(key).identity()
    return linked


def _stage(
    run: ConfigDict, method: str, start: str = "", parts: int = 1, **settings: object
) -> dict[str, object]:
    """One training run on a ``parts``-th of the budget, from which its steps follow.

    ``settings`` are keys of its config with ``__`` for the dots.
    """
    changed = _linked(run)
    apply_method(changed, method)
    with changed.unlocked():
        changed.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in settings.items()}
        )
    return {"start": start, "parts": parts, "config": changed}


def _stages(run: ConfigDict) -> dict[str, object]:
    stage = partial(_stage, run)
    codi = partial(stage, "codi")
    # They were run before 5 was found to be better for CoDi, and are far from where that counts.
    pe_codi = partial(stage, "pe_codi", loss__data_weight=20.0)
    return {
        "ldm": stage("finetune"),
        # What a frozen prior costs without any distillation, beside the PE-CoDi rows.
        "ldm_frozen": stage("finetune", model__trainable=ADAPTER),
        "codi": codi(),
        "pe_mix": pe_codi(),
        "pe_controlnet": pe_codi(model__adapter="controlnet"),
        "pe_t2i": pe_codi(model__adapter="t2i"),
        "ldm_half": stage("finetune", parts=2),
        "cm": stage("cm", "ldm_half", parts=2),
        "cm_frozen": stage("cm_frozen", "ldm_half", parts=2),
        "cm_lpips": stage("cm", "ldm_half", parts=2, loss__distance="lpips"),
        "gd1_prior": stage(
            "progressive",
            parts=2,
            task="prior",
            model__trainable="unet/.*",
            model__adapter="none",
            eval__steps=(4,),
        ),
        "gd1": stage("finetune", "gd1_prior", parts=2),
        "gd2": stage("progressive", "ldm_half", parts=2),
        "random": codi(model__init="random"),
        "batch_t": codi(loss__time_per="batch"),
        "lambda_1": codi(loss__data_weight=1.0),
        "lambda_20": codi(loss__data_weight=20.0),
        "lambda_100": codi(loss__data_weight=100.0),
        "no_weights": codi(loss__min_snr_gamma=None),
        "no_guidance": codi(loss__data_weight=0.0),
        "reencoded": codi(loss__data_space="reencoded"),
        "pixel": codi(loss__data_space="pixel"),
        "lpips": codi(loss__data_space="lpips"),
        "with_lpips": codi(loss__lpips_weight=0.5),
        "ddim_v": codi(loss__predictor="ddim_v"),
        "ddim": codi(loss__predictor="ddim"),
        "euler": codi(loss__predictor="euler"),
    }


def _rows() -> tuple[dict[str, object], ...]:
    """In the tables' order; ``sampler`` are settings of ``SamplerConfig``."""

    def row(
        label: str, stage: str, steps: tuple[int, ...] = FEW, table: str = "methods", **sampler: str
    ) -> dict[str, object]:
        return {"label": label, "stage": stage, "steps": steps, "table": table, "sampler": sampler}

    def ablation(label: str, stage: str) -> dict[str, object]:
        return row(label, stage, table="ablations")

    return (
        row("LDM-SR", "ldm", (*FEW, 20, 50)),
        row("LDM-SR, frozen prior", "ldm_frozen", (4, 8)),
        row("DPM-Solver", "ldm", (4, 8), solver="dpmsolver"),
        row("DPM-Solver++", "ldm", (4, 8), solver="dpmsolver++"),
        row("CM-II", "cm", solver="consistency"),
        row("CM-II, LPIPS", "cm_lpips", solver="consistency"),
        row("CM-II frozen", "cm_frozen", solver="consistency"),
        row("GD-I", "gd1", (4, 8)),
        row("GD-II", "gd2", (4, 8)),
        row("PE-CoDi ControlNet", "pe_controlnet"),
        row("PE-CoDi T2I-Adapter", "pe_t2i"),
        row("PE-CoDi mix", "pe_mix"),
        row("CoDi", "codi"),
        row("LDM-SR", "ldm", (200,)),
        ablation("CoDi", "codi"),
        ablation("random initialisation", "random"),
        ablation("one t per batch", "batch_t"),
        ablation("no conditional guidance", "no_guidance"),
        ablation("no min-SNR weights", "no_weights"),
        ablation("predictor ddim_v", "ddim_v"),
        ablation("predictor euler", "euler"),
        ablation("predictor ddim (frozen prior)", "ddim"),
        ablation("d_x: E(D(x_hat))", "reencoded"),
        ablation("d_x: pixels", "pixel"),
        ablation("d_x: LPIPS", "lpips"),
        ablation("d_x: latents and LPIPS", "with_lpips"),
        ablation("lambda = 1, as in eq. 11", "lambda_1"),
        ablation("lambda = 20", "lambda_20"),
        ablation("lambda = 100", "lambda_100"),
    )


def _make_tiny(config: ConfigDict) -> None:
    """Two methods, two ablations, two pictures."""
    keep = {"ldm", "codi", "ldm_half", "cm", "ddim_v"}
    for name in set(config.stages) - keep:
        del config.stages[name]
    # Each number of steps is a program of its own.
    few = [{**row, "steps": (4,)} for row in config.rows if row["stage"] in keep]
    config.rows = tuple(row for row in few if row["label"] != "DPM-Solver")
    config.passes, config.run.eval.count, config.eval.batch = 120, 1, 2
    for options in config.sets.values():
        options.count = 2
        options.size = min(options.size, 32)

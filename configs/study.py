r"""The study: every method and every ablation, with one budget, on one set of photos.

Command:   python -m codi_jax.study --config=configs/study.py --workdir=runs/study \
               --config.run.data.source=TRAIN --config.run.data.eval_source=HELD_OUT
Hardware:  two CPU cores; any accelerator with more `--config.run.steps`.
Time:      about an hour on two cores.
Expect:    WORKDIR/<stage>/ (one training run each), WORKDIR/rows/*.json, WORKDIR/results.json, and
           the report docs/results.md with its pictures. Nothing is done twice.

LPIPS, as a score and as a distance to train with, needs `--config.eval.lpips=True` and its
networks (docs/metrics.md). Without them, the rows that train with it are left out.

Variants:  default, or tiny: the same with small networks, in about two minutes, for tests.

``stages`` are training runs: what they start from ("" is the embedded prior), the method (a name
of ``configs/methods.py``), their share of the budget ``run.steps``, and further settings. A method
of two stages gets half of the budget for each. ``rows`` are lines of the tables: which stage's
model, sampled how, in how many steps. ``peers`` are folders of other programs' results for the
pictures of WORKDIR/inputs/input, scored as ours are (docs/study.md).
"""

from functools import partial
from typing import Any

from ml_collections import ConfigDict

from configs import sr
from configs.methods import apply_method

FEW = (1, 2, 4, 8)


def get_config(variant: str = "default") -> ConfigDict:
    """``default`` or ``tiny``."""
    if variant not in ("default", "tiny"):
        raise ValueError(f"unknown variant {variant!r}: default or tiny")
    run = sr.get_config(variant)
    run.steps, run.batch_size = 240, 8
    run.data.degradation = "bicubic"
    run.eval.count, run.eval.steps = 4, (4,)
    run.eval.every = run.checkpoint.every = 10_000  # at the end alone
    run.checkpoint.keep = 1
    config = ConfigDict(
        {
            "run": run,
            "stages": _stages(run),
            "rows": _rows(),
            "peers": (),  # {"name": "StableSR", "images": DIR, "seconds": 9.5, "parameters": 10**9}
            "eval": {
                "count": 32,
                "size": 128,
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
    """One training run on a ``parts``-th of the budget.

    ``settings`` are keys of its config with ``__`` for the dots.
    """
    changed = _linked(run)
    changed.steps = run.get_ref("steps") // parts
    apply_method(changed, method)
    with changed.unlocked():
        changed.update_from_flattened_dict(
            {key.replace("__", "."): value for key, value in settings.items()}
        )
    return {"start": start, "config": changed}


def _stages(run: ConfigDict) -> dict[str, object]:
    stage = partial(_stage, run)
    # The times that 1, 2, 4 and 8 steps sample at, and no others.
    grid: dict[str, Any] = {"loss__dt": 1, "loss__grid_steps": 8}
    codi, pe_codi = partial(stage, "codi", **grid), partial(stage, "pe_codi", **grid)
    # 16, 8 and 4 steps: the tables compare at 4.
    halvings: dict[str, Any] = {"loss__steps_per_stage": run.get_ref("steps") // 2 // 3}

    return {
        "ldm": stage("finetune"),
        "codi": stage("codi"),  # all times, dt = 20
        "grid": codi(),
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
            **halvings,
        ),
        "gd1": stage("finetune", "gd1_prior", parts=2),
        "gd2": stage("progressive", "ldm_half", parts=2, **halvings),
        "random": codi(model__init="random"),
        "batch_t": codi(loss__time_per="batch"),
        "small_dt": codi(loss__grid_steps=None, loss__dt=5, loss__min_snr_gamma=25.0),
        "no_weights": codi(loss__min_snr_gamma=None),
        "no_guidance": codi(loss__data_weight=0.0),
        "reencoded": codi(loss__data_space="reencoded"),
        "pixel": codi(loss__data_space="pixel"),
        "lpips": codi(loss__data_space="lpips"),
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
        row("CoDi, grid of 8 times", "grid"),
        row("CoDi", "codi"),
        row("LDM-SR", "ldm", (200,)),
        ablation("grid of 8 times", "grid"),
        ablation("all times, dt = 20", "codi"),
        ablation("all times, dt = 5, gamma = 25", "small_dt"),
        ablation("random initialisation", "random"),
        ablation("one t per batch", "batch_t"),
        ablation("no min-SNR weights", "no_weights"),
        ablation("no conditional guidance", "no_guidance"),
        ablation("d_x: E(D(x_hat))", "reencoded"),
        ablation("d_x: pixels", "pixel"),
        ablation("d_x: LPIPS", "lpips"),
        ablation("predictor ddim_v", "ddim_v"),
        ablation("predictor euler", "euler"),
        ablation("predictor ddim (frozen prior)", "ddim"),
    )


def _make_tiny(config: ConfigDict) -> None:
    """Two methods, two ablations, two pictures."""
    keep = {"ldm", "codi", "ldm_half", "cm", "ddim_v"}
    for name in set(config.stages) - keep:
        del config.stages[name]
    config.rows = tuple(row for row in config.rows if row["stage"] in keep)
    config.run.steps, config.run.eval.count = 4, 1
    config.eval = ConfigDict({**config.eval, "count": 2, "size": 32, "batch": 2})

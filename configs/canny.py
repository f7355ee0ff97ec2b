"""Canny edges to picture, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/canny.py --workdir=runs/canny
Hardware:  two CPU cores, no accelerator.
Time:      10 to 12 minutes with compilation and evaluation.
Expect:    in results.json at 4 steps an F1 of the condition's and the result's edges ("edge_f1")
           at least 0.2 above "start". So short a run on so few photos puts texture where edges
           are; contours take longer, and a stronger prior.

The edges are computed on the fly by OpenCV, with thresholds 100 and 200; others by
--config.task_options.low=... and .high=....

Variants:  default   the embedded prior on the bundled photos
           tiny      the same road with small random networks: for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. With them,
parameter-efficient: --config=configs/canny.py:sd21,pe_codi --config.model.adapter=controlnet.
Neither has been run to the end by us.
"""

from ml_collections import ConfigDict

from configs.shared import conditional


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`."""
    config = conditional("canny", variants, steps=1200, batch_size=8)
    config.task_options = ConfigDict({"low": 100.0, "high": 200.0})
    return config

"""Canny edges to picture, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/canny.py --workdir=runs/canny
Hardware:  two CPU cores, no accelerator.
Time:      10 to 12 minutes with compilation and evaluation.
Expect:    in results.json at 4 steps an "edge_f1" (of the condition's and the result's edges) at
           least 0.2 above that of "start". So short a run on so few photos puts texture where
           edges are; contours need longer training and a stronger prior.

OpenCV computes the edges on the fly, with the thresholds 100 and 200;
--config.task_options.low and --config.task_options.high set others.

Variants:  default   the embedded prior on the bundled photos
           tiny      the same with small random networks, for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. To train the adapter
alone: --config=configs/canny.py:sd21,pe_codi --config.model.adapter=controlnet. We have run neither
variant to its end.
"""

from ml_collections import ConfigDict

from configs.shared import conditional


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`."""
    config = conditional("canny", variants, steps=1200, batch_size=8)
    config.task_options = ConfigDict({"low": 100.0, "high": 200.0})
    return config

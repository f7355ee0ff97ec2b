"""Depth to picture, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/depth.py --workdir=runs/depth
Hardware:  two CPU cores, no accelerator.
Time:      5 to 6 minutes with compilation and evaluation.
Expect:    in results.json at 4 steps a "depth_error" of at most half of that of "start". It
           compares the depth that is read off the result with the depth that was asked for.

The default's data are closed synthetic scenes in blue haze, off which depth can be read exactly
(codi_jax/data/scenes.py). Your own: a folder whose metadata.jsonl has a column depth_file_name
(16-bit, 0 where there is no reading), with --config.data.source=DIR
--config.task_options.recovered_by='' and, for disparities, --config.task_options.kind=disparity.

Variants:  default   the embedded prior on the synthetic scenes
           tiny      the same with small random networks, for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...
The prompt of sd15 and sd21 is the caption, the column text.

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. To train the adapter
alone: --config=configs/depth.py:sd21,pe_codi --config.model.adapter=controlnet. We have run neither
variant to its end.
"""

from ml_collections import ConfigDict

from configs.shared import conditional, with_text


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`."""
    config = conditional("depth", variants)
    config.task_options = ConfigDict({"kind": "metric", "recovered_by": ""})
    if with_text(variants):
        config.model.prompt, config.data.prompt_dropout = "{text}", 0.1
    else:
        config.data.source, config.task_options.recovered_by = "synthetic:depth", "haze"
        config.eval.size = min(config.eval.size, 96)
    return config

"""Depth to picture, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/depth.py --workdir=runs/depth
Hardware:  two CPU cores, no accelerator.
Time:      minutes.
Expect:    in results.json at 4 steps a "depth_error" of at most half of "start"'s: the depth that
           is read off the result against the depth that was asked for.

The default's data are closed synthetic scenes in blue haze, off which depth can be read exactly
(codi_jax/data/scenes.py). Your own: a folder whose metadata.jsonl has a column depth_file_name
(16-bit, 0 where there is no reading), with --config.data.source=DIR
--config.task_options.recovered_by='' and, for disparities, --config.task_options.kind=disparity.

Variants:  default   the embedded prior on the synthetic scenes
           tiny      the same road with small random networks: for tests
           pe        parameter-efficient: the prior is frozen, only the adapter trains
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
Their prompt is the caption, the column text.

The last two need --config.data.source, and hardware as configs/sr.py says. Parameter-efficient with
them: --config.model.adapter=controlnet --config.model.trainable='adapter/.*'. We have run neither.
"""

from ml_collections import ConfigDict

from configs.shared import CHECKPOINTS, conditional


def get_config(variant: str = "default") -> ConfigDict:
    """The config of one of :data:`configs.shared.VARIANTS`."""
    config = conditional("depth", variant)
    config.task_options = ConfigDict({"kind": "metric", "recovered_by": ""})
    if variant in CHECKPOINTS:
        config.model.prompt, config.data.prompt_dropout = "{text}", 0.1
    else:
        config.data.source, config.task_options.recovered_by = "synthetic:depth", "haze"
        config.eval.size = min(config.eval.size, 96)
    return config

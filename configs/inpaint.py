"""Inpainting, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/inpaint.py --workdir=runs/inpaint
Hardware:  two CPU cores, no accelerator.
Time:      5 to 6 minutes with compilation and evaluation.
Expect:    in results.json better scores than "mean fill" (the hole in the mean colour of the rest):
           at 1 step a "hole_psnr", the PSNR in the hole, at least 1 dB higher; at 4 steps a higher
           HaarPSI and a lower GMSD. Outside the hole every pixel is the input's.

Holes are strokes, boxes, halves and silhouettes, drawn on the fly. If the data's metadata.jsonl has
a column mask_file_name, those masks are used instead (white is filled).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same with small random networks, for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. To train the adapter
alone: --config=configs/inpaint.py:sd21,pe_codi --config.model.adapter=controlnet. We have run
neither variant to its end.
"""

from ml_collections import ConfigDict

from configs.shared import conditional


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`."""
    # Twice as many made 4 steps worse: the bundled photos are few.
    config = conditional("inpaint", variants)
    config.task_options = ConfigDict({"masks": ("strokes", "boxes", "half", "object")})
    return config

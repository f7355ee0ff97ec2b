"""Instructed editing, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/edit.py --workdir=runs/edit
Hardware:  two CPU cores, no accelerator.
Time:      about 10 minutes with compilation and evaluation.
Expect:    in results.json at 4 steps an "edit_accuracy" of at least 0.75: how often the result is
           nearer to the edit that was asked for than to the four others and to the source (0.2
           for a model that does not read); and a PSNR at least 3 dB above "unchanged".

The default's triples are made from photos on the fly, a closed set of five edits with three
instructions each (codi_jax/data/edits.py). Your own: a folder whose metadata.jsonl has the columns
edited_file_name and instruction (or edit_prompt).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same road with small random networks: for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...
Their prompt is the instruction.

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. With them,
parameter-efficient: --config=configs/edit.py:sd21,pe_codi --config.model.adapter=controlnet.
Neither has been run to the end by us.
"""

from ml_collections import ConfigDict

from configs.shared import conditional, with_text


def get_config(variants: str = "default") -> ConfigDict:
    """The config of ``variants``, see :func:`configs.shared.conditional`."""
    config = conditional("edit", variants, steps=1000, batch_size=8)
    config.task_options = ConfigDict({"instruction_channels": 16, "drop": 0.05})
    if with_text(variants):
        config.task_options.instruction_channels = 0
        config.model.prompt, config.data.prompt_dropout = "{instruction}", 0.05
    elif "tiny" not in variants:
        config.eval.count = 20
    return config

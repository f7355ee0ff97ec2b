"""Instructed editing, distilled by CoDi from a prior.

Command:   python -m codi_jax.main --config=configs/edit.py --workdir=runs/edit
Hardware:  two CPU cores, no accelerator.
Time:      about 10 minutes with compilation and evaluation.
Expect:    in results.json at 4 steps an "edit_accuracy" of at least 0.75, and a PSNR at least 3 dB
           above that of "unchanged". The accuracy is how often the result is nearer to the edit
           that was asked for than to the four others and to the source (0.2 for a model that
           does not read the instruction).

The default makes its examples from photos on the fly, with five edits of three instructions each
(codi_jax/data/edits.py). Your own: a folder whose metadata.jsonl has the columns
edited_file_name and instruction (or edit_prompt).

Variants:  default   the embedded prior on the bundled photos
           tiny      the same with small random networks, for tests
           sd15      Stable Diffusion 1.5 at 512 px, all parameters
           sd21      Stable Diffusion 2.1 (v, 768 px) at 512 px, all parameters
           METHOD    any of configs/methods.py: pe_codi (parameter-efficient), finetune, ...
The prompt of sd15 and sd21 is the instruction.

sd15 and sd21 need --config.data.source, and hardware as configs/sr.py says. To train the adapter
alone: --config=configs/edit.py:sd21,pe_codi --config.model.adapter=controlnet. We have run neither
variant to its end.
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

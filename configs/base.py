"""What all training configs share. Not a config itself: sr.py and others start from it."""

from typing import Any

from ml_collections import ConfigDict, FieldReference


class _NameOrBool(FieldReference):
    """A string that older configs set to True or False."""

    def set(self, value: Any, type_safe: bool = True) -> None:
        super().set(str(value) if isinstance(value, bool) else value, type_safe)


def base() -> ConfigDict:
    """Defaults of every key. The command line can set these keys and refuses others."""
    return ConfigDict(
        {
            "task": "sr",  # a file of codi_jax/tasks, or module:Class of your own
            "task_options": {},  # fields of the task's class
            # The loss: codi | finetune | consistency | progressive | guided; see methods.py.
            "method": "codi",
            "label": "",  # what the results are called; "": the method
            "seed": 0,
            "steps": 1000,
            "batch_size": 16,  # over all devices
            "accumulation": 1,  # parts that a batch is worked through in
            "dtype": "auto",  # of the computation: bfloat16 on accelerators, float32 on CPU
            "model": {
                "pretrained": "",  # "demo", "prior", or a diffusers-format directory
                "init": "pretrained",  # pretrained | random: U-Net and adapter; not the autoencoder
                "adapter": "none",  # none | mix | controlnet | t2i
                "pretrained_adapter": "",  # directory of a ControlNet or a T2I-Adapter
                "trainable": "(unet|adapter)/.*",  # regex over parameter paths; the rest is frozen
                "autoencoder": "",  # a checkpoint whose autoencoder replaces the pretrained one
                "vae_init": "random",  # random | linear: the best linear code of the pictures
                "vae": {},  # architectures, where nothing pretrained is given
                "unet": {},
                "scheduler": {},
                "prediction_type": "v_prediction",
                "prompt": "",  # for U-Nets that take text; with columns of the data: "{text}"
                "time_cond_proj_dim": 0,  # > 0: gives the U-Net a guidance scale to read, so wide
                "lpips_weights": "~/.cache/codi_jax",  # folder, for losses with "lpips"
                # What the gradient's memory holds: none | dots | blocks | everything, from the most
                # memory to the least (True and False, as older configs have it: blocks, none).
                "remat": _NameOrBool("none"),
                "vae_batch": 0,  # pictures a device that it works on at a time; 0: all
            },
            "loss": {},  # the fields of the method's loss class
            "optim": {
                "learning_rate": 1e-4,
                "warmup_steps": 50,
                "decay": "constant",
                "weight_decay": 0.01,
                "b1": 0.9,
                "b2": 0.999,
                "clip_norm": 1.0,
                "mu_multiplier": 1.0,
            },
            "ema": {"target": 0.95, "eval": 0.999},
            "data": _data(),
            "mesh": {"data": -1, "fsdp": 1},
            "eval": {
                "every": 500,
                "count": 8,
                "size": 128,
                "steps": (1, 2, 4),
                "beside": "",  # a finished model of the task, such as "demo", shown beside
            },
            "checkpoint": {"every": 500, "keep": 2},
            "log_every": 20,
            "tensorboard": True,
        }
    )


def _data() -> dict[str, object]:
    return {
        "source": "skimage",  # skimage | folder | tfds:NAME | a glob of shards
        "eval_source": "",  # the same kinds; empty: the source's own held-out part
        "size": 64,  # side of the training crops, in pixels
        "scale": 4,
        "degradation": "realesrgan",  # realesrgan | bicubic
        "clean_share": 0.0,  # of training inputs that are reduced bicubically alone
        "chart_share": 0.0,  # of training pictures that are colour charts
        "num_workers": 0,
        "prompt_dropout": 0.0,  # share of empty prompts, where each picture has its own
        "encoded": False,  # use the data's columns of `prepare --latents --embeddings`
        "max_corrupt": 0,  # so many corrupt images are skipped; then the run stops
    }

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
            "seed": 0,  # of weights, data, noise and times
            "steps": 1000,  # of training
            "batch_size": 16,  # over all devices
            "accumulation": 1,  # parts that a batch is worked through in
            "dtype": "auto",  # auto | float32 | bfloat16; auto: bfloat16 on accelerators
            "model": _model(),
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
            "ema": {
                "target": 0.95,  # decay of theta-, the target network
                "eval": 0.999,  # decay of the average that is evaluated and saved as the model
            },
            "data": _data(),
            "mesh": {"data": -1, "fsdp": 1},
            "eval": {
                "every": 500,  # training steps between evaluations
                "count": 8,  # held-out pictures
                "size": 128,  # side of those pictures, in pixels
                "steps": (1, 2, 4),  # numbers of sampling steps
                "beside": "",  # a finished model of the task, such as "demo", shown beside
            },
            "checkpoint": {
                "every": 500,  # training steps between checkpoints
                "keep": 2,  # the newest ones stay
            },
            "log_every": 20,  # training steps between lines of the log and of metrics.jsonl
            "tensorboard": True,  # write event files, too
        }
    )


def _model() -> dict[str, object]:
    return {
        "pretrained": "",  # "demo", "prior", or a diffusers-format directory
        "init": "pretrained",  # pretrained | random: U-Net and adapter; not the autoencoder
        "adapter": "none",  # none | mix | controlnet | t2i
        "pretrained_adapter": "",  # directory of a ControlNet or a T2I-Adapter
        "trainable": "(unet|adapter)/.*",  # regex over parameter paths; the rest is frozen
        "autoencoder": "",  # a checkpoint whose autoencoder replaces the pretrained one
        "vae_init": "random",  # random | linear: the best linear code of the pictures
        "vae": {},  # the autoencoder's config.json, where nothing pretrained is given
        "unet": {},  # the U-Net's config.json, likewise
        "scheduler": {},  # the noise schedule's config.json, likewise
        "prediction_type": "v_prediction",  # of a U-Net that is not pretrained
        "prompt": "",  # for U-Nets that take text; with columns of the data: "{text}"
        "time_cond_proj_dim": 0,  # > 0: gives the U-Net a guidance scale to read, so wide
        "lpips_weights": "~/.cache/codi_jax",  # folder, for losses with "lpips"
        # What the gradient's memory holds: none | dots | blocks | everything, from the most
        # memory to the least (True and False, as older configs have it: blocks, none).
        "remat": _NameOrBool("none"),
        "vae_batch": 0,  # pictures a device that the autoencoder works on at a time; 0: all
    }


def _data() -> dict[str, object]:
    return {
        "source": "skimage",  # skimage | folder | tfds:NAME | a glob of shards
        "eval_source": "",  # the same kinds; empty: the source's own held-out part
        "size": 64,  # side of the training crops, in pixels
        "scale": 4,  # of super-resolution
        "degradation": "realesrgan",  # realesrgan | bicubic: what makes the small inputs
        "clean_share": 0.0,  # of training inputs that are reduced bicubically alone
        "chart_share": 0.0,  # of training pictures that are colour charts
        "num_workers": 0,  # processes that read the data; 0: the run's own alone
        "cache": "auto",  # of decoded pictures: auto (memory, if all fit) | off | memory | disk
        "cache_gb": 2.0,  # its bound, in 1e9 bytes
        "prompt_dropout": 0.0,  # share of empty prompts, where each picture has its own
        "encoded": False,  # use the data's columns of `prepare --latents --embeddings`
        "max_corrupt": 0,  # so many corrupt images are skipped; then the run stops
    }

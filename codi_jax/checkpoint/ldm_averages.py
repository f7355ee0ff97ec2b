"""The running average (EMA) of a U-Net in the original layout.

It is stored beside the plain network, under names without dots: the average of
``model.diffusion_model.out.0.weight`` is ``model_ema.diffusion_modelout0weight``. Some files hold
it alone.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from codi_jax.typing import UserError

EMA = "model_ema.diffusion_model"
# A name without dots, in the pieces that dots divide; which of them are numbers is known.
_ATTENTION = r"(attn[12])(?:(to_[qkv])|(to_out)(\d))"
_TRANSFORMER = rf"(transformer_blocks)(\d+)(?:{_ATTENTION}|(ff)(net)(\d)(proj)?|(norm\d))"
_RESNET = r"(in_layers|emb_layers|out_layers)(\d)|(skip_connection)|(op)|(conv)"
_BLOCK = rf"(?:{_RESNET}|(norm)|(proj_in)|(proj_out)|{_TRANSFORMER})"
_NAME = re.compile(
    rf"(?:(time_embed|out)(\d)|(label_emb)(\d)(\d)|(middle_block)(\d){_BLOCK}"
    rf"|(input_blocks|output_blocks)(\d+)(\d){_BLOCK}?)(weight|bias)"
)


def averaged_names(
    path: Path, shapes: Mapping[str, tuple[int, ...]], plain: Mapping[str, str]
) -> dict[str, str]:
    """``{name within the U-Net: name of its average in the file}``.

    Args:
        path: for messages.
        shapes: of the file's tensors.
        plain: the plain network's names within the U-Net; empty where it is absent.

    Raises:
        UserError: the average is alone, and holds a name that no U-Net has.
    """
    if plain:
        return {inner: _stored(shapes, inner) for inner in plain}
    names = {}
    for name in shapes:
        if name.startswith(EMA):
            inner = name.removeprefix(EMA).removeprefix(".")
            if "." not in inner:
                match = _NAME.fullmatch(inner)
                if match is None:
                    raise UserError(
                        f"{path}: {name} is no tensor of a U-Net's running average. Such a model "
                        "is not supported."
                    )
                inner = ".".join(piece for piece in match.groups() if piece is not None)
            names[inner] = name
    return names


def _stored(shapes: Mapping[str, tuple[int, ...]], inner: str) -> str:
    """The average's name; the usual one if there is none, for the message."""
    dotted = f"{EMA}.{inner}"
    return dotted if dotted in shapes else EMA + inner.replace(".", "")

"""Names in diffusers' format: of tensors, of the files that hold them, of files to refuse.

Between a path of our parameter trees and a PyTorch tensor's name the rule is mechanical:

* ``/`` becomes ``.``; a component that ends in ``_<digits>`` is an item of a list:
  ``down_blocks_0`` -> ``down_blocks.0``. Only ``linear_1``, ``linear_2`` and Inception's
  ``branch7x7_1`` and the like are names as such.
* the leaf ``kernel`` is ``weight`` with the axes reversed in meaning: [*window, in, out] ->
  [out, in, *window]; ``scale`` and ``embedding`` are ``weight`` as they are; other leaves
  (``bias``, ``mu``) keep name and layout.

The rule is applied to *our* template, so a name never has to be parsed back.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from codi_jax.typing import UserError

#: Weights of diffusers' models, then of transformers' (text encoders).
STEMS = ("diffusion_pytorch_model", "model")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
#: Weights that are not read: PyTorch's pickles and the old Flax models'.
NOT_READ = (*PICKLES, ".msgpack")
_WEIGHT_LEAVES = ("kernel", "scale", "embedding")
_NOT_LISTS = re.compile(r"linear_[12]|branch\dx\w+_\d")
# Old transformers stored this constant (0, 1, 2, ...) beside CLIP's parameters.
IGNORED_TENSORS = re.compile(r"(.*\.)?position_ids")
# The variant stands before the number of a shard (new) or after it (old); in the name of an
# index before ".json" (new), before ".index" or before ".safetensors".
_WEIGHT_FILE = re.compile(
    rf"(?P<stem>{'|'.join(STEMS)})(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors"
    r"((\.fp16)?\.index(\.fp16)?\.json)?"
)
#: So the autoencoders of the first diffusers name the projections of their attention.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(
    rf"(.*\bmid_block\.attentions\.0)\.({'|'.join(OLD_ATTENTION)})\.(weight|bias)"
)
_AUTOENCODER_ATTENTION = re.compile(
    r"(encoder|decoder)\.mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight"
)


def torch_name(path: str) -> str:
    """``down_blocks_0/attn1/to_out_0/kernel`` -> ``down_blocks.0.attn1.to_out.0.weight``."""
    *modules, leaf = path.split("/")
    names = [m if _NOT_LISTS.fullmatch(m) else re.sub(r"_(\d+)$", r".\1", m) for m in modules]
    return ".".join([*names, "weight" if leaf in _WEIGHT_LEAVES else leaf])


def to_torch(path: str, array: np.ndarray) -> np.ndarray:
    """Our layout -> PyTorch's: kernels [*window, in, out] -> [out, in, *window]."""
    if path.rsplit("/", 1)[-1] == "kernel":
        n = array.ndim
        return array.transpose(n - 1, n - 2, *range(n - 2))
    return array


def from_torch(path: str, tensor: np.ndarray) -> np.ndarray:
    """PyTorch's layout -> ours: kernels [out, in, *window] -> [*window, in, out]."""
    if path.rsplit("/", 1)[-1] == "kernel":
        return tensor.transpose(*range(2, tensor.ndim), 1, 0)
    return tensor


def canonical_name(name: str) -> str:
    """One name for all under which files of different age hold the same tensor.

    Old autoencoders have ``query``, ``key``, ``value``, ``proj_attn``; a ``CLIPTextModel`` has
    the prefix ``text_model.`` in what transformers 4 wrote and not in what transformers 5 writes.
    """
    match = _OLD_NAME.fullmatch(name)
    if match:
        name = f"{match[1]}.{OLD_ATTENTION[match[2]]}.{match[3]}"
    return name.removeprefix("text_model.")


def canonical_shape(canonical: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """[out, in] also for the autoencoder's attention stored as convolutions [out, in, 1, 1]."""
    if _AUTOENCODER_ATTENTION.fullmatch(canonical) and set(shape[2:]) == {1}:
        return shape[:2]
    return shape


def choose_weights(names: Collection[str]) -> list[str]:
    """Of the file names in one folder, those that hold its model: a file, or index and shards.

    diffusers' names before transformers', the plain files before the variant ``fp16``; other
    variants (``non_ema``) are not looked at. Empty if there is no safetensors file of a model.
    """
    matches = [match for match in map(_WEIGHT_FILE.fullmatch, sorted(names)) if match]
    for stem in STEMS:
        for variant in ("", ".fp16"):
            single = f"{stem}{variant}.safetensors"
            if single in names:
                return [single]
            group = [
                match[0]
                for match in matches
                if match["stem"] == stem and (".fp16" in match[0]) == bool(variant)
            ]
            index = [name for name in group if name.endswith(".json")]
            if index:
                return [index[0], *(name for name in group if not name.endswith(".json"))]
    return []


def refuse_pickle(path: Path) -> None:
    """Raises UserError if the file's name says that reading it could run code."""
    if path.suffix in PICKLES:
        target = path.with_suffix(".safetensors")
        raise UserError(
            f"{path}: such files can run code when they are loaded and are not read. Convert it "
            "where PyTorch is installed, and give the result:\n"
            'python -c "import torch; from safetensors.torch import save_file; '
            f"d = torch.load('{path}', map_location='cpu', weights_only=True); "
            "d = d.get('state_dict', d); save_file({k: v.clone().contiguous() "
            f"for k, v in d.items() if torch.is_tensor(v)}}, '{target}')\""
        )

"""Copying parts of a checkpoint that are not changed: text encoders and tokenizers."""

import shutil
from pathlib import Path

from codi_jax.typing import UserError

#: What text encoders and tokenizers consist of; pickles and code are not among it.
_KINDS = (".json", ".txt", ".safetensors")


def copy_part(folder: Path, target: Path) -> None:
    """Copy the files of one part of a checkpoint: JSON, text and safetensors, nothing else.

    Args:
        folder: in a checkpoint's directory.
        target: made if needed.

    Raises:
        UserError: a file is a link to somewhere else; before anything is copied.
    """
    files = [f for f in sorted(folder.iterdir()) if f.suffix in _KINDS and f.is_file()]
    for file in files:
        _check_link(file, folder.parent)
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)


def _check_link(file: Path, root: Path) -> None:
    """A checkpoint from elsewhere must not bring other files of this machine into an export."""
    root, real = root.resolve(), file.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # the cache of Hugging Face keeps all files in blobs/
        allowed.append(root.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise UserError(
            f"{file} is a link to {real}, outside of the checkpoint {root}: if you trust it, put "
            "the file itself there."
        )

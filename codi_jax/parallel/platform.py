"""What the machine computes well in, and where it keeps what it has compiled."""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from codi_jax.typing import UserError

#: Bytes of compiled programs that are kept; the ones that were not used for longest go first.
CACHE_SIZE = 2 * 2**30


def keep_compiled() -> None:
    """Keep compiled programs in the user's cache folder, so that the next start is quick.

    jax's own settings win: ``JAX_COMPILATION_CACHE_DIR`` is another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=0`` turns it off. One line on standard error says where.
    """
    config: Any = jax.config  # its types do not know its options
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    folder = cache_folder("compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"compiled programs are not kept: {folder}: {error.strerror}"
    else:
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_compilation_cache_max_size", CACHE_SIZE)
        config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        said = f"compiled programs are kept in {folder}, at most {CACHE_SIZE >> 30} GiB"
    if jax.process_index() == 0:
        print(said, file=sys.stderr)


def cache_folder(name: str) -> Path:
    """Where the user's programs keep what can be made again; ``XDG_CACHE_HOME`` moves it."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return caches / "codi_jax" / name


def compute_dtype(name: str) -> DTypeLike:
    """The dtype of the networks' computation; their parameters stay float32.

    Args:
        name: "float32", "bfloat16", or "auto": bfloat16 on accelerators, and float32 on CPUs,
            which have no fast bfloat16.

    Raises:
        UserError: another name.
    """
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype={name!r}: choose auto, float32 or bfloat16.")
    return jnp.dtype(name)

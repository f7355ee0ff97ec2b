"""From what the user names as a checkpoint to a path: Hugging Face ids are fetched once.

Only what this package reads is downloaded: JSON and text files, and one variant of the weights of
each model as safetensors. Not pickles, not safety checkers, not the single files at the top.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from codi_jax.checkpoint.diffusers_format import CONFIG
from codi_jax.checkpoint.files import INDEX, load_object, weight_files
from codi_jax.checkpoint.names import NOT_READ, choose_weights, refuse_pickle
from codi_jax.models.adapters.registry import FOLDERS
from codi_jax.typing import UserError

_MODELS = ("unet", "vae", *FOLDERS, "text_encoder", "text_encoder_2")
_OTHERS = ("tokenizer", "tokenizer_2", "scheduler")
#: The checkpoints that are shipped, and their folder.
SHIPPED = ("codec", "prior", "demo")
ASSETS = Path(__file__).parents[1] / "assets"
#: Published checkpoints whose configs are shipped without their weights, and their folder.
ARCHITECTURES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "stabilityai/stable-diffusion-2-1": "sd21",
}
_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


def resolve(name: str | os.PathLike[str], cache_dir: str | Path | None = None) -> Path:
    """The path of a checkpoint; one that is named by its Hugging Face id is fetched first.

    Args:
      name: a directory, or a ``.safetensors`` file: returned as it is. Or "owner/name" or
        "owner/name@revision", where the revision is a branch, a tag or a commit. What exists on
        this machine goes before the id.
      cache_dir: of huggingface_hub; by default its own. A download that was interrupted goes on
        where it stopped, and without network what is in the cache is used.

    Returns:
      The path as given, or the folder of the snapshot in the cache.

    Raises:
      UserError: no such path and no such repository; access to it is refused; it cannot be
        reached and is not in the cache; it holds no safetensors in diffusers' format;
        huggingface_hub is not installed.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    refuse_pickle(path)
    match = _ID.fullmatch(os.fspath(name))
    if path.suffix == ".safetensors" or match is None:
        if path.is_file() and path.suffix == ".safetensors":
            return path
        what = "is no .safetensors file" if path.is_file() else "does not exist"
        raise UserError(
            f"{name} {what}. Give a directory in diffusers' format, a .safetensors file, or the "
            "id of a Hugging Face repository: owner/name or owner/name@revision."
        )
    return _fetch(match["repo"], match["revision"], cache_dir)


def wanted_files(repo: str, names: Iterable[str]) -> list[str]:
    """Of all files in a repository, those to download.

    In the folders of a pipeline, or at the top if that is a model: JSON and text files, and the
    weights as safetensors, the variant ``fp16`` only where there is no other.

    Args:
      repo: for messages.
      names: paths within the repository.

    Raises:
      UserError: a model has its weights as pickles only; there is no model.
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders.setdefault(str(path.parent), set()).add(path.name)
    top = folders.get(".", set())
    loader = "DiffusionPipeline" if INDEX in top else "AutoModel"
    chosen: list[str] = []
    for folder in _MODELS if INDEX in top else (".", *_MODELS):
        files = folders.get(folder, set())
        weights = choose_weights(files)
        refused = sorted(file for file in files if file.endswith(NOT_READ))
        if refused and not weights and CONFIG in files:
            raise UserError(
                f"{repo} has no safetensors beside {PurePosixPath(folder, refused[0])}: such files "
                "can run code when they are loaded and are not read. Convert it where PyTorch and "
                f'diffusers are installed (python -c "import diffusers; diffusers.{loader}.'
                f"from_pretrained('{repo}', use_safetensors=False).save_pretrained('FOLDER')\") "
                "and give FOLDER instead."
            )
        chosen += [str(PurePosixPath(folder, file)) for file in weights]
    if not chosen:
        single = sorted(file for file in top if file.endswith(".safetensors"))
        raise UserError(
            f"{repo} holds no model in diffusers' format"
            + (f", but {', '.join(single)}: download one, give its path." if single else ".")
        )
    for folder in (".", *_MODELS, *_OTHERS):
        texts = sorted(
            file
            for file in folders.get(folder, set())
            if file.endswith((".json", ".txt")) and ".index." not in file
        )
        chosen += [str(PurePosixPath(folder, file)) for file in texts]
    return list(dict.fromkeys(chosen))


def _fetch(repo: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UserError(
            f"{repo} is no path on this machine; to fetch it from Hugging Face, "
            "pip install 'codi_jax[sd]'."
        ) from None
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision)
        wanted = wanted_files(repo, [file.rfilename for file in info.siblings or []])
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, cache_dir=cache_dir, allow_patterns=wanted
        )
        return Path(folder)
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repo} is open only to those who accept its conditions: do so on "
            f"https://huggingface.co/{repo}, then run `hf auth login` (or set HF_TOKEN) here."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{repo} has no revision {revision!r}: see https://huggingface.co/{repo}/tree/main "
            "for its branches, tags and commits."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(
            f"{repo} is no path on this machine and no repository on huggingface.co that is open "
            "to you. Check the spelling; if it is private, run `hf auth login` (or set HF_TOKEN)."
        ) from error
    # HTTPError is what the HTTP library of huggingface_hub raises if there is no connection.
    except (errors.HTTPError, OSError) as error:
        return _cached(repo, revision, cache_dir, reason=error)


def _cached(
    repo: str, revision: str | None, cache_dir: str | Path | None, reason: Exception
) -> Path:
    """The snapshot in the cache, if it is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # It would also ask for files that we never download: completeness is checked below.
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=True,
                ignore_patterns="*",
            )
        )
        lacking = _lacking(folder)
    except LocalEntryNotFoundError:
        lacking = "has no copy of it"
    if not lacking:
        return folder
    lines = (str(reason) or type(reason).__name__).splitlines()
    at = f" --revision {revision}" if revision else ""
    raise UserError(
        f"{repo} cannot be downloaded ({lines[0]}), and the cache {lacking}. Try again with "
        f"network, or run `hf download {repo}{at} --local-dir FOLDER` on another machine, copy "
        f"FOLDER here and give its path instead of {repo}. Needed are {INDEX} and the .json, .txt "
        f"and .safetensors files in {', '.join(f'{name}/' for name in (*_MODELS, *_OTHERS))} as "
        "far as the repository has them, or for a single model its config.json and weights."
    )


def _lacking(folder: Path) -> str:
    """What an interrupted download left out, in words; empty if nothing is missing."""
    models = [folder]
    if (folder / INDEX).is_file():
        index = load_object(folder / INDEX)
        # Parts that a pipeline does without are [null, null].
        present = {name for name, entry in index.items() if isinstance(entry, list) and any(entry)}
        models = [folder / name for name in _MODELS if name in present]
        others = [folder / name for name in _OTHERS if name in present]
        for part in others:
            if not any(part.glob("*.json")):
                return f"lacks {part.name}/ in {folder}"
    for model in models:
        try:
            weight_files(model)
        except UserError as error:
            return f"is incomplete ({error})"
        if not (model / CONFIG).is_file():
            return f"lacks {CONFIG} in {model}"
    return ""


def architecture_path(name: str) -> Path:
    """A directory with the configs of a checkpoint, and perhaps no weights: nothing is fetched.

    Args:
        name: as for :func:`checkpoint_path`; an id is one of :data:`ARCHITECTURES`, or is fetched.

    Raises:
        UserError: as :func:`checkpoint_path`.
    """
    if name in ARCHITECTURES and not Path(name).is_dir():
        return ASSETS / "architectures" / ARCHITECTURES[name]
    return checkpoint_path(name)


def checkpoint_path(name: str) -> Path:
    """The directory of a checkpoint.

    Args:
        name: "codec", "prior" or "demo" (shipped with the package), a directory, or a Hugging
            Face id, which is fetched.

    Raises:
        UserError: no such directory or repository, or a single file.
    """
    if name in SHIPPED:
        return ASSETS / name
    path = resolve(name)
    if path.is_file():
        raise UserError(
            f"{path} is a single file: make a directory of it first with "
            f"`python -m codi_jax.convert import {path} DIRECTORY`."
        )
    return path

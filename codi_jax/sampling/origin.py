"""What loading an unfinished run needs beside its checkpoints; neither its config nor its loss."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax

from codi_jax.checkpoint.directory import read_directory, write_architecture
from codi_jax.checkpoint.files import load_json, save_json
from codi_jax.checkpoint.hub import checkpoint_path
from codi_jax.checkpoint.parameters import add_guidance_input, with_params
from codi_jax.model import AutoencoderModel, Model
from codi_jax.typing import Params, UserError

#: In a workdir: the architecture of its model without weights, and the origin of these.
ARCHITECTURE, ORIGIN = "architecture", "origin.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the parameters of an unfinished run come from; it lies beside its checkpoints.

    Attributes:
        pretrained: checkpoint of the parts that are read, "" for none.
        adapter: directory of a pretrained adapter, "" for none.
        autoencoder: checkpoint of another autoencoder than the pretrained one's, "" for none.
        redraw: parts that were drawn at random although they are on disk.
        seed: of the parameters that were drawn.
        guidance_input: whether the run gave its U-Net a guidance scale to read.
        trainable: regex over the paths of the parameters in the checkpoints; the others are
            frozen.
        averages: names of the moving averages in the checkpoints.
        frozen: hash of the frozen parameters, "" if there are none.
    """

    pretrained: str
    adapter: str
    autoencoder: str
    redraw: tuple[str, ...]
    seed: int
    guidance_input: bool
    trainable: str
    averages: tuple[str, ...]
    frozen: str

    def write(self, workdir: Path, model: AutoencoderModel) -> None:
        """Write this and the architecture of ``model``; the first process alone does."""
        write_architecture(workdir / ARCHITECTURE, model)
        if jax.process_index() == 0:
            save_json(workdir / ORIGIN, dataclasses.asdict(self))

    @classmethod
    def read(cls, workdir: Path) -> tuple[Self, AutoencoderModel]:
        """What :meth:`write` wrote; its model is without parameters."""
        path = workdir / ORIGIN
        content = load_json(path)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, Mapping) or names - {*content}:
            raise UserError(f"{path} is incomplete: resume the run once, which writes it anew.")
        values: dict[str, Any] = {name: content[name] for name in names}
        lists = {name: tuple(values[name]) for name in ("redraw", "averages")}
        return cls(**{**values, **lists}), read_directory(workdir / ARCHITECTURE)

    def params(self, model: AutoencoderModel) -> Params:
        """The parameters that the run started from."""
        directory = checkpoint_path(self.pretrained) if self.pretrained else None
        vae = checkpoint_path(self.autoencoder) / "vae" if self.autoencoder else None
        if not isinstance(model, Model):
            base = dataclasses.replace(model, directory=directory, vae_directory=vae)
            return with_params(base, jax.random.key(self.seed)).params
        adapter = self._adapter(directory)
        unet = model.network.unet
        if self.guidance_input:
            unet = dataclasses.replace(unet, time_cond_proj_dim=None)
        base = dataclasses.replace(
            model,
            network=dataclasses.replace(model.network, unet=unet),
            directory=directory,
            vae_directory=vae,
            adapter_directory=adapter,
        )
        params = with_params(base, jax.random.key(self.seed), redraw=self.redraw).params
        return add_guidance_input(params, model) if self.guidance_input else params

    def _adapter(self, directory: Path | None) -> Path | None:
        if self.adapter:
            return checkpoint_path(self.adapter)
        if directory is None:
            return None
        read = read_directory(directory)
        return read.adapter_directory if isinstance(read, Model) else None

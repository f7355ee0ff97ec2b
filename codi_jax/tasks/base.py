"""What a task is: what it reads, how it makes the condition, how it is shown and scored.

One task is one file of this package with one subclass of :class:`Task`; ``docs/tasks.md`` adds
one step by step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from codi_jax.data.pipeline import Transforms
from codi_jax.data.transforms import Apply, CheckSizes, RandomCropFlip
from codi_jax.models.autoencoders import Autoencoder
from codi_jax.typing import Array, Params, Settings, UserError

#: Host arrays of equally many examples, by name.
Batch = Mapping[str, Any]
#: Host arrays of one example, by name.
Example = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The base: no condition. The fields of a subclass are its options.

    Attributes:
        scale: how many times larger the result is than the user's picture.
        name: the task's word in configs and checkpoints: the file's name.
        reads: arrays of a batch that :meth:`condition` reads.
        aligned: pictures and maps of a source's element that are cropped together.
        saved: options that sampling needs too; they travel with the model.
        diffuses: whether there is a diffusion model, and not an autoencoder alone.
        conditional: whether there is a condition, so that distillation applies.
        measures: names of what :meth:`score` gives -> whether more is better.
        scored: whether ``batch["image"]`` is the one right result, to be compared with.
        takes_map: whether the user gives a map [h, w] in place of a picture.
        keeps: what the result has of the user's picture: "grey" (a grey picture stays grey),
            "alpha" (its transparency), "icc" (its colour profile).
    """

    scale: int = 1
    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    aligned: ClassVar[tuple[str, ...]] = ("image",)
    saved: ClassVar[tuple[str, ...]] = ()
    diffuses: ClassVar[bool] = True
    conditional: ClassVar[bool] = True
    measures: ClassVar[Mapping[str, bool]] = {}
    scored: ClassVar[bool] = True
    takes_map: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_config(cls, options: Settings, data: Settings) -> Self:
        """The task of ``config.task_options`` and ``config.data``."""
        return cls(**options)

    @property
    def key(self) -> str:
        """What :func:`codi_jax.tasks.registry.task_class` finds this task by."""
        kind = type(self)
        if kind.__module__ == f"codi_jax.tasks.{self.name}":
            return self.name
        return f"{kind.__module__}:{kind.__qualname__}"

    def shapes(self, size: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each of :attr:`arrays` in an example of ``size`` pixels."""
        return {"image": ((size, size, 3), "uint8")}

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays of a batch that go to the devices: "image" is what is to be made."""
        return tuple(dict.fromkeys(("image", *self.reads)))

    # Data, on the host.

    def transforms(self, size: int, *, train: bool) -> Transforms:
        """From a source's elements to examples of ``size`` pixels: crop, then :meth:`prepare`."""
        augment = [Apply(self.augment)] if train else []
        return [RandomCropFlip(size, self.aligned), Apply(self.prepare), *augment]

    def whole_frames(self) -> Transforms:
        """From a source's elements to examples of their own size."""
        return [CheckSizes(self.aligned), Apply(self.prepare)]

    def prepare(self, element: Example, rng: np.random.Generator) -> Example:
        """Add what :attr:`reads` names to a cropped element; "image" is uint8 [H, W, 3]."""
        return element

    def augment(self, example: Example, rng: np.random.Generator) -> Example:
        """A prepared example as training sees it."""
        return example

    # The condition, on the device.

    def image_channels(self) -> int:
        """Channels of the condition's "image", which ControlNets and T2I-Adapters read."""
        return 3

    def latent_channels(self, vae: int) -> int:
        """Channels of the condition's "latents", which ``mix`` reads; ``vae`` are a picture's."""
        return vae

    def condition(self, vae: Autoencoder, vae_params: Params, batch: Batch) -> dict[str, Array]:
        """The condition of the arrays :attr:`reads`, under jit.

        Returns:
            "image" [B, H, W, image_channels] in [-1, 1] and "latents" [B, h, w, latent_channels],
            both of the result's size.
        """
        return {}

    # Sampling.

    def from_user(
        self, image: np.ndarray, *, mask: np.ndarray | None = None, prompt: str | None = None
    ) -> Example:
        """What :attr:`reads` names, from a user's picture.

        Args:
            image: uint8 [h, w, 3], or a map [h, w] (see ``takes_map``).
            mask: uint8 [h, w], for tasks that have one.
            prompt: for tasks that read it themselves (elsewhere it goes to the text encoder).

        Raises:
            UserError: this task takes no picture, or no mask, or misses one.
        """
        raise UserError(f"a model for {self.name} takes no picture.")

    def before_tiles(self, example: Example) -> Example:
        """What depends on all of a picture, computed before it is cut into tiles.

        Args:
            example: what :meth:`from_user` gave.

        Returns:
            Arrays that :meth:`condition` reads; a tile's are cut out of them.
        """
        return example

    def finish(self, picture: np.ndarray, example: Batch) -> np.ndarray:
        """The last step from a sampled picture to the result.

        Args:
            picture: uint8 or uint16 [H, W, 3].
            example: what :meth:`from_user` gave; "image", if it has one, has the same dtype.
        """
        return picture

    @property
    def reads_prompt(self) -> bool:
        """Whether :meth:`from_user` reads the prompt, so that no text encoder is needed."""
        return False

    def without_prompt(self, example: Batch) -> Example:
        """The example without its prompt, for guidance."""
        return dict(example)

    def without_picture(self, example: Batch) -> Example:
        """The example without its picture, for guidance.

        Raises:
            UserError: a model for this task is not trained without its picture.
        """
        raise UserError(f"a model for {self.name} has no guidance by the image: leave it out.")

    # Evaluation, on the host; all pictures are uint8 [N, H, W, 3].

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Columns that the grid shows before the results."""
        return {}

    def baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """Simple results that a model must beat, by name. They are shown and scored."""
        return {}

    def more_baselines(self, batch: Batch) -> dict[str, np.ndarray]:
        """Further ones, which `evaluate` and `study` score: they are neither shown nor in runs."""
        return {}

    def score(self, pictures: np.ndarray, batch: Batch) -> dict[str, float]:
        """The task's own :attr:`measures`."""
        return {}


def no_mask(task: Task, mask: np.ndarray | None) -> None:
    """Check that no mask is given to a task that has none.

    Raises:
        UserError: there is a mask.
    """
    if mask is not None:
        raise UserError(f"a model for {task.name} takes no mask: leave it out.")

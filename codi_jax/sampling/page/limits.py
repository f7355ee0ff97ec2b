"""What the page offers, to whom, and how much of it."""

import dataclasses

from codi_jax.typing import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The page.

    Attributes:
        checkpoint: the models to choose from, with commas between: workdirs, model directories,
            Hugging Face ids, or demo.
        host: address of the page; with 0.0.0.0 other machines reach it, too.
        port: its port; 0 takes a free one.
        max_upload: MB of a file.
        max_megapixels: of a picture that is given, and of a result.
        max_waiting: how many requests may wait; further ones are refused.
        task_module: a task of your own, module:Class; its code is run.
    """

    checkpoint: tuple[str, ...] = ("demo",)
    host: str = "127.0.0.1"
    port: int = 7860
    max_upload: int = 50
    max_megapixels: float = 24.0
    max_waiting: int = 16
    task_module: str | None = None

    def __post_init__(self) -> None:
        """Check the fields; the errors are `UserError`."""
        if not 0 <= self.port < 2**16:
            raise UserError(f"--port={self.port}: give 0 to 65535.")
        for name in ("max_upload", "max_megapixels", "max_waiting"):
            value = getattr(self, name)
            if not value > 0:
                raise UserError(f"--{name}={value}: give a number above 0.")

    def check_pixels(self, what: str, height: int, width: int, remedy: str) -> None:
        """Check that a picture is not too large.

        Args:
            what: the picture, for the message.
            height: of it, in pixels.
            width: of it, in pixels.
            remedy: what to do about it.

        Raises:
            UserError: it is.
        """
        megapixels = height * width / 1e6
        if megapixels > self.max_megapixels:
            raise UserError(
                f"{what} {width}x{height} pixels, {megapixels:.1f} megapixels, and this page takes "
                f"and makes up to {self.max_megapixels:g}: {remedy}"
            )

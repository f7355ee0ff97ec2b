"""What happens on the page: between gradio's values and `work`."""

import html
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import gradio as gr
import numpy as np
from PIL import Image

from codi_jax.sampling.page.choices import Choice
from codi_jax.sampling.page.examples import write_examples
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.page.work import Wish, background, check_picture, make
from codi_jax.typing import UserError

#: The most steps that one may ask for: the models are distilled for few.
MAX_STEPS = 8
#: Seconds after which files are deleted that were given or made.
KEPT = 3600


class Painting(TypedDict):
    """What gradio's editor gives: RGBA, or None where there is nothing."""

    background: np.ndarray | None
    layers: list[np.ndarray]
    composite: np.ndarray | None


class Painted(TypedDict):
    """What it is given."""

    background: Image.Image | None
    layers: list[Image.Image]
    composite: Image.Image | None


class Handlers:
    """What happens on the page.

    Args:
        choices: the models by name.
        options: of the page.
        folder: where the files of results go and examples are.
    """

    def __init__(self, choices: Mapping[str, Choice], options: PageOptions, folder: Path):
        self._choices, self._options, self._folder = choices, options, folder
        self._examples = {
            name: write_examples(choice.task, folder / "examples" / str(number))
            for number, (name, choice) in enumerate(choices.items())
        }

    def examples(self, model: str) -> list[str]:
        """The pictures to try a model with."""
        return self._examples[model]

    def example(self, model: str, selected: gr.SelectData) -> str:
        """The example that was pressed becomes the picture."""
        return self._examples[model][selected.index]

    def chosen(self, model: str, picture: str | None) -> tuple[dict, dict, dict]:
        """Another model: what it reads is shown."""
        with _messages():
            choice = self._choices[model]
            return (
                self._painting(choice, picture),
                gr.update(visible=choice.takes_prompt),
                gr.update(value=self._examples[model]),
            )

    def given(self, model: str, picture: str | None) -> dict:
        """Another picture: it is checked, and shown where it is to be painted on."""
        with _messages():
            if picture is not None:
                check_picture(Path(picture), self._options)
            return self._painting(self._choices[model], picture)

    def make(
        self,
        model: str,
        picture: str | None,
        painting: Painting | None,
        prompt: str | None,
        steps: int,
        seed: int | None,
        reduce: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  gradio finds it by its default
    ) -> tuple[tuple[Image.Image, Image.Image], str, dict]:
        """Make the picture: before and after, what is said of it, and its file."""
        with _messages():
            if picture is None:
                raise UserError("there is no picture yet: drop one into the field, or choose one.")
            if not 1 <= steps <= MAX_STEPS:
                raise UserError(f"steps={steps}: give 1 to {MAX_STEPS}.")
            wish = Wish(
                picture=Path(picture),
                layers=painting["layers"] if painting else (),
                steps=int(steps),
                seed=int(seed or 0),
                prompt=(prompt or "").strip(),
                reduce=reduce,
            )

            def told(tiles: int, of: int) -> None:
                progress((tiles, of), unit="tiles")

            own = Path(tempfile.mkdtemp(dir=self._results()))
            made = make(self._choices[model], wish, self._options, own, told)
            return (
                (made.before, made.after),
                made.text,
                gr.update(value=made.file, interactive=True),
            )

    def _results(self) -> Path:
        """The folder of results, without those that have been shown for long."""
        folder = self._folder / "results"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
        return folder

    def _painting(self, choice: Choice, picture: str | None) -> dict:
        """The editor: hidden, or with the picture in it."""
        if not choice.takes_mask:
            return gr.update(visible=False, value=None)
        shown = None if picture is None else background(Path(picture), self._options)
        value: Painted = {"background": shown, "layers": [], "composite": shown}
        return gr.update(visible=True, value=value)


@contextmanager
def _messages() -> Iterator[None]:
    """What goes wrong is a message that stays on the page until it is closed."""
    try:
        yield
    except UserError as error:
        text = html.escape(str(error))
        raise gr.Error(text, duration=None, print_exception=False) from error
    except Exception as error:  # ours: the terminal gets the traceback
        text = "this is a fault of the program; the terminal where it was started says more."
        raise gr.Error(text, duration=None) from error

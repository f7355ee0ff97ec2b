"""The page itself: what stands on it, and what happens when something is pressed."""

from collections.abc import Mapping
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData

from codi_jax.sampling.page.choices import Choice
from codi_jax.sampling.page.handlers import KEPT, MAX_STEPS, Handlers
from codi_jax.sampling.page.limits import PageOptions

#: Seconds between two looks for files that are to be deleted.
LOOKED = 600
CSS = """
footer { display: none !important; }
#examples, #examples div:has(.gallery-item) { height: auto !important; min-height: 0 !important; }
#examples div:has(.gallery-item) { max-height: none !important; }
@media (max-width: 480px) { .gradio-container main { padding: 8px !important; } }
"""


def file_alone(payload: ImageData | None) -> str | None:
    """The file that was uploaded, as gradio has checked, and not what gradio would decode."""
    return None if payload is None else payload.path


def build(choices: Mapping[str, Choice], options: PageOptions, folder: Path) -> gr.Blocks:
    """The page.

    Args:
        choices: the models by name.
        options: of the page.
        folder: where results go and examples are, below ``examples``; gradio copies what it shows.
    """
    handlers = Handlers(choices, options, folder)
    first = next(iter(choices.values()))
    with gr.Blocks(
        title="codi_jax", analytics_enabled=False, delete_cache=(LOOKED, KEPT), fill_width=True
    ) as page:
        gr.Markdown("# Pictures in a few steps\nGive a picture, and press the button.")
        with gr.Row():
            with gr.Column():
                model = gr.Dropdown(
                    [(choice.label, name) for name, choice in choices.items()],
                    value=first.name,
                    label="Model",
                    elem_id="model",
                )
                picture = gr.Image(
                    label="Your picture",
                    type="filepath",
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_id="picture",
                )
                picture.preprocess = file_alone
                gr.Markdown("Or take one of these:")
                examples = _examples(handlers.examples(first.name))
                painting = _painting(first.takes_mask)
                prompt = gr.Textbox(label="Prompt", visible=first.takes_prompt, elem_id="prompt")
                with gr.Row():
                    steps = gr.Slider(1, MAX_STEPS, value=4, step=1, label="Steps", elem_id="steps")
                    seed = gr.Number(0, precision=0, minimum=0, label="Seed", elem_id="seed")
                reduce = gr.Checkbox(label="Reduce a large picture first", elem_id="reduce")
                button = gr.Button("Make the picture", variant="primary", elem_id="make")
            with gr.Column():
                slider = gr.ImageSlider(
                    label="Before and after",
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="result",
                )
                text = gr.Markdown(elem_id="text")
                file = gr.DownloadButton("Download the PNG", interactive=False, elem_id="file")
        model.change(handlers.chosen, [model, picture], [painting, prompt, examples])
        picture.change(handlers.given, [model, picture], [painting])
        examples.select(handlers.example, [model], [picture])
        button.click(
            handlers.make,
            [model, picture, painting, prompt, steps, seed, reduce],
            [slider, text, file],
            concurrency_limit=1,
        )
    return page


def _examples(shown: list[str]) -> gr.Gallery:
    return gr.Gallery(
        shown,
        show_label=False,
        container=False,
        columns=3,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="examples",
    )


def _painting(visible: bool) -> gr.ImageEditor:
    return gr.ImageEditor(
        label="Paint what to fill",
        visible=visible,
        type="numpy",
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(colors=["#ff2d55"], color_mode="fixed"),
        elem_id="painting",
    )

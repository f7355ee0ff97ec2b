"""Serving the page: what of the machine is reached through it, and what is not."""

import importlib.util
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from codi_jax.parallel.platform import keep_compiled
from codi_jax.sampling.page.choices import Choice, load_choices
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.tiling import Tiling
from codi_jax.tasks.registry import trust_task
from codi_jax.typing import UserError

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], _Send], Awaitable[None]]

#: The page is made of what this server sends: a browser fetches nothing from elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
#: Routes of gradio's that the page does without: they fetch from other servers, or write code.
_REFUSED = ("/proxy=", "/file=http:", "/file=https:", "/vibe-", "/deep_link")


class Guard:
    """Before gradio: refuses routes, and says to browsers what the page is made of.

    Args:
        app: what answers, by the ASGI protocol.
    """

    def __init__(self, app: _App):
        self._app = app

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: _Send
    ) -> None:
        """Answer one request."""

        async def sent(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if scope["type"] == "http" and any(part in scope["path"] for part in _REFUSED):
            await sent({"type": "http.response.start", "status": 403})
            await sent({"type": "http.response.body", "body": b"not served here"})
            return
        await self._app(scope, receive, sent)


@contextmanager
def serving(options: PageOptions, tiling: Tiling) -> Iterator[str]:
    """Load the models and serve the page; the address.

    What is given and made lies in a folder of its own, which is removed at the end.

    Raises:
        UserError: gradio is not installed, a model that is not there, an address that is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio: pip install 'codi_jax[demo]'")
    port = free_port(options.host, options.port)
    if options.task_module:
        trust_task(options.task_module)
    keep_compiled()
    choices = load_choices(options.checkpoint, tiling)
    with (
        tempfile.TemporaryDirectory(prefix="codi_jax_page_") as folder,
        launched(choices, options, port, Path(folder)) as address,
    ):
        yield address


@contextmanager
def launched(
    choices: Mapping[str, Choice], options: PageOptions, port: int, folder: Path
) -> Iterator[str]:
    """Serve the page of these models; the address.

    Args:
        choices: the models by name.
        options: of the page.
        port: a free one.
        folder: an empty one for all that is given and made.
    """
    # Read by gradio when it is imported and later: nothing is reported, or kept elsewhere.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "shown")
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "shown")
    from starlette.middleware import Middleware  # comes with gradio

    from codi_jax.sampling.page.layout import CSS, build

    page = build(choices, options, folder)
    page.queue(max_size=options.max_waiting, api_open=False, default_concurrency_limit=1)
    page.launch(
        server_name=options.host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        css=CSS,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size=options.max_upload * 10**6,
        allowed_paths=[str(folder / "examples")],
        app_kwargs={
            "middleware": [Middleware(Guard)],
            **dict.fromkeys(("docs_url", "redoc_url", "openapi_url")),
        },
    )
    try:
        yield f"http://{options.host}:{port}"
    finally:
        page.close()


def free_port(host: str, port: int) -> int:
    """The port; a free one for 0.

    Raises:
        UserError: the address is not this machine's, or the port is taken.
    """
    try:
        with socket.create_server((host, port), family=socket.AF_INET) as server:
            return server.getsockname()[1]
    except OSError as error:
        raise UserError(
            f"--host={host} --port={port}: {error.strerror or error}. Give another --port, or 0 "
            "for a free one."
        ) from error

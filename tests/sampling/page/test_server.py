"""What of the machine is reached through the page, and how many people it serves at once."""

import json
import socket
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codi_jax.sampling.page import server
from codi_jax.sampling.page.limits import PageOptions
from codi_jax.sampling.page.server import free_port, serving
from codi_jax.sampling.page.work import make
from codi_jax.sampling.tiling import Tiling
from codi_jax.typing import UserError

pytest.importorskip("gradio", reason="the extra demo is not installed")
pytestmark = [
    pytest.mark.slow,
    # gradio's own, in its thread.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Page:
    """What a browser says to the page, without one."""

    def __init__(self, address: str):
        self.address = address

    def get(self, path: str) -> tuple[int, str]:
        return self._answer(urllib.request.Request(self.address + path))

    def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, str]:
        headers = {"Content-Type": kind}
        return self._answer(urllib.request.Request(self.address + path, body, headers))

    def _answer(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def upload(self, name: str, data: bytes) -> tuple[int, str]:
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--b--\r\n"
        return self.post("/gradio_api/upload", body, "multipart/form-data; boundary=b")

    def join(self, picture: str, session: str, steps: int = 1) -> tuple[int, str]:
        """Press the button for a file of the server."""
        config = json.loads(self.get("/config")[1])
        number = next(d["id"] for d in config["dependencies"] if d["api_name"] == "make")
        file = {"path": picture, "meta": {"_type": "gradio.FileData"}}
        data = ["runs/tiny", file, None, "", steps, 0, False]
        body = {"data": data, "fn_index": number, "session_hash": session}
        return self.post("/gradio_api/queue/join", json.dumps(body).encode())

    def result(self, session: str) -> dict[str, Any]:
        """What the page answers in the end."""
        url = f"{self.address}/gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(url, timeout=120) as lines:
            for line in lines:
                message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("the page did not answer")


@pytest.fixture(scope="module")
def page(served: Any) -> Iterator[Page]:
    yield Page(served.address)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    return file.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../../../etc/passwd",
        f"/gradio_api/file={__file__}",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file/etc/passwd",
        "/static/../../../../../etc/passwd",
        "/assets/..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=https://example.invalid/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/monitoring",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_file_of_the_machine_is_read_through_the_page(page: Page, path: str) -> None:
    status, text = page.get(path)
    assert status in (403, 404) and "root:" not in text


def test_a_path_in_place_of_an_upload_is_refused(page: Page) -> None:
    for picture in ("/etc/passwd", __file__, "http://127.0.0.1:1/x.png"):
        session = uuid.uuid4().hex
        assert page.join(picture, session)[0] == 200
        answer = page.result(session)
        assert not answer["success"] and "root:" not in json.dumps(answer)


def test_what_is_made_is_read_through_the_page(page: Page, photo: bytes) -> None:
    (path,) = json.loads(page.upload("my photo.png", photo)[1])
    session = uuid.uuid4().hex
    page.join(path, session)
    answer = page.result(session)
    assert answer["success"], answer
    shown, text, file = answer["output"]["data"]
    assert "8x8 → 32x32" in text and len(shown) == 2
    url = f"{page.address}/gradio_api/file={file['value']['path'].replace(' ', '%20')}"
    with urllib.request.urlopen(url, timeout=60) as opened:
        assert Image.open(opened).size == (32, 32)


def test_a_file_that_is_too_large_is_refused(page: Page) -> None:
    status, text = page.upload("large.png", bytes(1_100_000))
    assert status == 413 and "maximum allowed size" in text


def test_a_text_file_is_named(page: Page) -> None:
    (path,) = json.loads(page.upload("text.png", b"this is text")[1])
    session = uuid.uuid4().hex
    page.join(path, session)
    answer = page.result(session)
    assert not answer["success"]
    assert "text.png: not an image that is read here" in answer["output"]["error"]
    assert "/text.png" not in answer["output"]["error"]


def test_twenty_at_once_are_served_or_refused_and_the_page_lives(
    page: Page, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def waiting(*given: Any, **options: Any) -> Any:
        assert gate.wait(120)
        return make(*given, **options)

    monkeypatch.setattr("codi_jax.sampling.page.handlers.make", waiting)
    (path,) = json.loads(page.upload("photo.png", photo)[1])
    sessions = [uuid.uuid4().hex for _ in range(20)]
    with ThreadPoolExecutor(20) as people:
        joined = list(people.map(lambda session: page.join(path, session), sessions))
        refused = [text for status, text in joined if status != 200]
        accepted = [s for s, (status, _) in zip(sessions, joined, strict=True) if status == 200]
        # Eight wait, and some were in work already while the others came.
        assert 8 <= len(accepted) <= 12 and len(accepted) + len(refused) == 20
        assert all("Queue is full" in text for text in refused)
        gate.set()
        assert all(answer["success"] for answer in people.map(page.result, accepted))
    assert page.get("/")[0] == 200


def test_a_browser_is_told_to_fetch_nothing_from_elsewhere(page: Page) -> None:
    with urllib.request.urlopen(page.address, timeout=60) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "load_choices", lambda *_: pytest.fail("too early"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"--port={port}: Address already in use"
        with pytest.raises(UserError, match=said), serving(PageOptions(port=port), Tiling()):
            pass
    with pytest.raises(UserError, match="--host=192.0.2.1"):
        free_port("192.0.2.1", 0)


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None)
    said = r"pip install 'codi_jax\[demo\]'"
    with pytest.raises(UserError, match=said), serving(PageOptions(), Tiling()):
        pass


def test_nothing_is_left_behind(served: Any) -> None:
    assert Path(served.folder, "shown").is_dir()  # what is given and shown lies there alone
    assert not Path(".gradio").exists()

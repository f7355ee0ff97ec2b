"""The page in a real Chromium: from the file to the result, on a desk and on a telephone."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra demo is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="the extra browser is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
    # gradio's own, in its thread.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 300  # seconds; the first picture compiles, and the machine may be busy


class Window:
    """One window on the page."""

    def __init__(self, driver: Any, address: str):
        self.driver, self.address = driver, address

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def wait(self, what: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < end, self.driver.page_source[-2000:]
            time.sleep(0.1)
        return found

    def open(self, picture: Path) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.all("#picture input[type=file]"))[0].send_keys(str(picture))

    def choose(self, model: str) -> None:
        box = self.wait(lambda: self.all("#model input"))[0]
        box.click()
        self.wait(lambda: [e for e in self.all("#model li") if e.text.startswith(model)])[0].click()

    def press(self) -> None:
        self.all("#make")[0].click()

    def text(self, css: str) -> str:
        return " ".join(element.text for element in self.all(css))

    def requests(self) -> set[str]:
        """The addresses that the page was made of."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        return {url for url in found if not url.startswith(("chrome", "data:", "blob:"))}


@pytest.fixture(params=[1280, 390])
def window(request: pytest.FixtureRequest, served: Any, tmp_path: Path) -> Iterator[Window]:
    width = request.param
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield Window(driver, served.address)
    driver.save_screenshot(str(tmp_path / f"end_{width}.png"))
    driver.quit()


def photo(folder: Path, height: int = 24, width: int = 36) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


def test_from_the_file_to_the_result(window: Window, tmp_path: Path) -> None:
    window.open(photo(tmp_path))
    window.wait(lambda: window.all("#picture img"))
    window.press()
    window.wait(lambda: "36x24 → 144x96" in window.text("#text"))
    assert "4 steps, seed 0" in window.text("#text")
    window.wait(lambda: len(window.all("#result img")) >= 2)
    assert window.all("#file")[0].is_enabled()
    sizes = "return [document.documentElement.scrollWidth, window.innerWidth]"
    wide, room = window.driver.execute_script(sizes)
    assert wide <= room  # nothing is beside the screen
    assert {url[: len(window.address)] for url in window.requests()} == {window.address}


def test_an_example_is_taken(window: Window) -> None:
    window.driver.get(window.address)
    window.wait(lambda: len(window.all("#examples button img")) == 3)
    row, button = window.all("#examples")[0].size, window.all("#examples button")[0].size
    assert row["height"] < 1.3 * button["height"]  # no empty room below them
    window.all("#examples button")[1].click()
    window.wait(lambda: window.all("#picture img"))
    window.press()
    window.wait(lambda: "→ 640x428" in window.text("#text"))


def test_mistakes_are_told_and_stay(window: Window, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    window.open(text)
    window.wait(lambda: "text.png: not an image" in window.text("[data-testid=toast-body]"))
    Image.new("L", (8000, 5000)).save(tmp_path / "forty.png")
    window.open(tmp_path / "forty.png")
    window.wait(
        lambda: "8000x5000 pixels, 40.0 megapixels" in window.text("[data-testid=toast-body]")
    )
    (tmp_path / "long.png").write_bytes(np.random.default_rng(0).bytes(1_500_000))
    window.open(tmp_path / "long.png")
    window.wait(lambda: "maximum allowed size" in window.text("body"))
    window.driver.get(window.address)
    window.wait(lambda: window.all("#make"))
    window.press()
    window.wait(lambda: "there is no picture yet" in window.text("[data-testid=toast-body]"))


def test_what_is_painted_is_filled(window: Window, served: Any, tmp_path: Path) -> None:
    from selenium.webdriver import ActionChains

    window.open(file := photo(tmp_path, 160, 240))
    window.wait(lambda: window.all("#picture img"))
    window.choose("fill")
    canvas = window.wait(lambda: window.all("#painting canvas"))[0]
    window.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    time.sleep(2)  # the editor fits the picture into its room
    before = {*served.folder.glob("results/*/photo_inpaint.png")}
    stroke = ActionChains(window.driver).move_to_element(canvas).click_and_hold()
    stroke.move_by_offset(20, 0).move_by_offset(10, 5).release().perform()
    window.press()
    window.wait(lambda: "240x160 → 240x160" in window.text("#text"))
    (made,) = {*served.folder.glob("results/*/photo_inpaint.png")} - before
    with Image.open(made) as result, Image.open(file) as given:
        changed = (np.asarray(result) != np.asarray(given)).any(axis=-1)
    assert 0 < changed.mean() < 0.5  # the stroke, and nothing else
    assert changed[80 - 8 : 80 + 8, 120:128].any() and not changed[:10].any()

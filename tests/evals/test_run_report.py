"""A run's report: one file, whole without a network, with every number that the run wrote."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from codi_jax.evals.metrics import Metric
from codi_jax.evals.results import Results, Score
from codi_jax.evals.run_report import panels, write_run_report

PSNR = Metric(
    higher_is_better=True, convention="of each image", heading="PSNR", paired=True, per_image=True
)
CONFIG = {"task": "sr", "label": "<mine>", "steps": 40, "data": {"source": "a&b"}}
LINES = [
    {"step": 20, "loss": 1.5, "data": 1.0, "grad_norm": 0.3, "mu": 0.1, "drift_target": 0.2},
    {"step": 20, "eval_1/psnr": 20.0, "eval_4/psnr": 21.0},
    {"step": 40, "loss": "nan", "data": 0.5, "grad_norm": 0.2, "mu": 0.2, "images_per_s": 9.0},
]


def folder(root: Path) -> Path:
    (root / "samples").mkdir()
    for step in (0, 40, 100):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "samples" / f"step_{step}.png")
    (root / "metrics.jsonl").write_text("\n".join(map(json.dumps, LINES)) + "\n")
    return root


class Parsed(HTMLParser):
    """The addresses and the text of a page; every element is closed."""

    def __init__(self, page: str):
        super().__init__()
        self.sources: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_finished_run(tmp_path: Path) -> None:
    results = Results(
        images=2, metrics={"psnr": PSNR}, scores={"mine": {4: {"psnr": Score(value=21.5)}}}
    )
    metrics = folder(tmp_path) / "metrics.jsonl"
    page = write_run_report(tmp_path, metrics, CONFIG, results).read_text(encoding="utf-8")
    parsed = Parsed(page)
    text = " ".join(parsed.words)
    assert "sr: <mine>" in text and "finished" in text and "'a&b'" in text
    assert "21.5" in text and "data.source" in text and "step 40 of" not in text
    own = [s for s in parsed.sources if not s.startswith("data:image/svg+xml;base64,")]
    # The last grid comes first; all lie beside the page.
    assert own == [f"samples/step_{step}.png" for step in (100, 40, 0)]
    assert not re.search(r"https?:|<script|<link", page)
    assert list(tmp_path.glob(".*")) == []


def test_a_run_at_work(tmp_path: Path) -> None:
    page = write_run_report(tmp_path, tmp_path / "metrics.jsonl", CONFIG).read_text()
    assert "step 0 of 40" in page and "None yet." in page
    now = {30: {"eval_1/psnr": 22.0}}
    metrics = folder(tmp_path) / "metrics.jsonl"
    text = " ".join(Parsed(write_run_report(tmp_path, metrics, CONFIG, now=now).read_text()).words)
    assert "step 40 of 40" in text and "Results" not in text


def test_what_is_drawn_together() -> None:
    lines = [{name: float(x) for name, x in line.items()} for line in LINES]
    drawn = panels([*lines, {"step": 60, "eval_reconstruction/psnr": 30.0, "data_wait": 0.1}])
    assert list(drawn)[:4] == [
        "loss",
        "gradient norm",
        "distance of the weights from their averages",
        "mu, the adapter's scale",
    ]
    assert {*drawn["loss"]} == {"loss", "data"} and drawn["loss"]["data"] == [(20, 1), (40, 0.5)]
    psnr = drawn["psnr on held-out pictures"]
    assert psnr == {"1 step": [(20, 20)], "4 steps": [(20, 21)], "reconstruction": [(60, 30)]}
    assert [*drawn["share of the time that waits for data"]] == ["data_wait"]

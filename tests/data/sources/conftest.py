import numpy as np
import pytest

from codi_jax.data import images
from codi_jax.data.sources import caching, notes
from tests.data.sources.counting import SIDE


@pytest.fixture
def save():
    """Writes an image file of one grey value and returns its bytes."""

    def write(path, value, size=(6, 8)):
        images.save_image(path, np.full((*size, 3), value, np.uint8))
        return path.read_bytes()

    return write


@pytest.fixture
def folder(tmp_path, save):
    root = tmp_path / "photos"
    for value, name in enumerate(["b.png", "a/c.PNG", "a/b/d.webp", "z.jpeg", "t.TIFF"]):
        save(root / name, value * 40)
    save(root / ".hidden.png", 7)
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The root of caches in memory; what was said before does not count."""
    monkeypatch.setattr(caching, "_memory", lambda: tmp_path / "memory")
    monkeypatch.setattr(notes, "_said", set())
    return tmp_path / "memory"


@pytest.fixture
def noise(tmp_path):
    """A folder of six photos of noise."""
    rng = np.random.default_rng(0)
    for i in range(6):
        images.save_image(
            tmp_path / "noise" / f"{i}.png", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        )
    return tmp_path / "noise"

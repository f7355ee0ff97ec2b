import numpy as np
import pytest

from codi_jax.data import images


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

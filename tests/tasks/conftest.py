"""A tiny model per task, and the shared photos where they are."""

from pathlib import Path

import pytest

#: Beside the repository, or beside the folder that a worktree is in.
SHARED = [Path(__file__).parents[n] / "shared" / "data" for n in (3, 4)]


@pytest.fixture
def shared_data() -> Path:
    for path in SHARED:
        if path.is_dir():
            return path
    pytest.skip("the folder shared/data is not beside the repository")

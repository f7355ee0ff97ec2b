"""What the networks compute in on which machine."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from codi_jax.parallel.platform import compute_dtype, keep_compiled
from codi_jax.typing import UserError


@pytest.mark.parametrize(
    ("backend", "expected"),
    [("cpu", jnp.float32), ("gpu", jnp.bfloat16), ("tpu", jnp.bfloat16)],
)
def test_auto_follows_the_machine(
    backend: str, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert compute_dtype("auto") == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_dtype_by_its_name(name: str) -> None:
    assert compute_dtype(name) == jnp.dtype(name)


@pytest.mark.parametrize("name", ["float16", "fp32", "", "Auto"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"dtype='{name}': choose auto, float32 or bfloat16"):
        compute_dtype(name)


NAMES = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def cache_settings() -> Iterator[None]:
    old = {name: getattr(jax.config, name) for name in NAMES}
    yield
    for name, value in old.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_settings")
def test_compiled_programs_are_kept_where_the_user_has_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled()
    folder = tmp_path / "codi_jax" / "compiled"
    assert jax.config.jax_compilation_cache_dir == str(folder) and folder.is_dir()
    assert jax.config.jax_compilation_cache_max_size == 2 * 2**30
    assert capsys.readouterr().err == f"compiled programs are kept in {folder}, at most 2 GiB\n"
    keep_compiled()  # as where JAX_COMPILATION_CACHE_DIR is set
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("cache_settings")
def test_a_home_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "codi_jax").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
    assert "compiled programs are not kept" in capsys.readouterr().err

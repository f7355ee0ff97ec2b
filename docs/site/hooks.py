"""What the site has beside ``docs/``: pages that lie elsewhere, and pages made of the code.

A fact has one home. README, the model cards and the launch scripts' page are read where they lie.
The reference of the config is made of ``configs/`` and of the checks in the code, that of the API
of the docstrings. Links are relative paths of the repository, as GitHub shows them; here they
become links between pages. Formulas become MathML, which browsers draw themselves.
"""

import html
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import config_reference  # noqa: E402

#: Pages that lie elsewhere: path in the repository -> name on the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "launch.md",
    "notebooks/README.md": "notebooks.md",
    **{f"codi_jax/assets/{n}/README.md": f"models/{n}.md" for n in ("demo", "prior", "codec")},
}
#: What stands for a source file on the site.
MADE = {"configs/base.py": "reference/config.md"}
#: Left out of the navigation while they do not exist.
PERHAPS = ("performance.md",)
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_config(config: Any) -> Any:
    """Drop pages of the navigation that are yet to be written."""
    missing = [page for page in PERHAPS if not (ROOT / "docs" / page).is_file()]
    for section in config.nav:
        for pages in section.values():
            pages[:] = [page for page in pages if page not in missing]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages from elsewhere, the made ones, and the files that pages link to."""
    made = {name: (ROOT / path).read_text(encoding="utf-8") for path, name in PAGES.items()}
    for name, text in {**made, **config_reference.pages(), **_api_pages()}.items():
        files.append(File.generated(config, name, content=text))
    for file in list(files.documentation_pages()):
        source = _source(file.src_uri)
        for target in {match[2] for match in _LINK.finditer(file.content_string)}:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
            name = _page(path)
            if files.get_file_from_path(name) is None and (ROOT / path).is_file():
                files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links by paths of the repository -> links between pages."""
    own, source = page.file.src_uri, _source(page.file.src_uri)

    def linked(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if files.get_file_from_path(_page(path)) is None:
            return match[0]  # mkdocs says that it leads nowhere
        return match[1] + os.path.relpath(_page(path), posixpath.dirname(own) or ".") + match[3]

    return _LINK.sub(linked, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """LaTeX -> MathML, and the roles of docstrings -> plain names."""

    def drawn(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]), display=display)

    content = re.sub(r":(?:class|func|data|meth|mod|attr):(?=<code>)", "", content)
    return _MATH.sub(drawn, content)


def _source(name: str) -> str:
    """The path in the repository of a page."""
    return {name: path for path, name in PAGES.items()}.get(name, f"docs/{name}")


def _page(path: str) -> str:
    """The name on the site of a path in the repository."""
    name = PAGES.get(path) or MADE.get(path)
    return name or (path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}")


def _api_pages() -> dict[str, str]:
    """One page for each part of the package; the root's own modules are a part, too."""
    package, parts = ROOT / "codi_jax", {}
    folders = [
        file.parent for file in package.glob("*/__init__.py") if file.parent.name != "assets"
    ]
    for folder in (package, *folders):
        found = folder.glob("*.py") if folder == package else folder.rglob("*.py")
        modules = sorted(
            ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for file in found
            if file.name != "__init__.py" or folder == package or file.read_text().strip()
        )
        text = "".join(f"::: {module}\n\n" for module in modules)
        parts[f"reference/api/{folder.name}.md"] = f"# {_title(folder, package)}\n\n{text}"
    return parts


def _title(folder: Path, package: Path) -> str:
    return "codi_jax" if folder == package else f"codi_jax.{folder.name}"

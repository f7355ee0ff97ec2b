"""The image of launch/Dockerfile: its rules, and that what it copies is there and travels."""

import re
import shutil
import subprocess
import tomllib

import pytest

from tests.printed import ROOT, fences

DOCKERFILE = ROOT / "launch" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of each line, continued ones joined."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_a_user_of_its_own_with_known_versions():
    done = instructions()
    names = [name for name, _ in done]
    assert set(names) <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "CMD"}
    (base,) = (words for name, words in done if name == "FROM")
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)  # a version, not "latest"
    (user,) = (words for name, words in done if name == "USER")
    assert user.isdigit() and int(user) > 0
    assert "RUN" not in names[names.index("USER") :]
    installed = [words for name, words in done if name == "RUN" and "pip install" in words]
    assert len(installed) == 2
    assert all("--no-cache-dir" in one and "-c constraints.txt" in one for one in installed)


def test_what_is_copied_is_there_and_travels_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored  # nothing but what is named below it
    copied = {
        source for name, words in instructions() if name == "COPY" for source in words.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    assert {f"!{source}" for source in copied} == {one for one in ignored if one.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {project["readme"], "requirements.txt", "codi_jax", "configs"}  # to build the package
    assert needed <= copied


def test_the_printed_builds_take_arguments_that_it_has():
    known = {words.split("=")[0] for name, words in instructions() if name == "ARG"}
    printed = [f.text for f in fences() if f.language == "bash" and "docker build" in f.text]
    builds = re.findall(r"^docker build (.*)$", "\n".join(printed), re.M)
    assert len(builds) == 3
    for build in builds:
        assert f"-f {DOCKERFILE.relative_to(ROOT)} " in build and build.endswith(" .")
        assert set(re.findall(r"--build-arg (\w+)=", build)) <= known

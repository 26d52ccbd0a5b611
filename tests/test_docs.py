"""The documents tell the truth: their commands run, their tables and lists match the code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastsoftmax
from fastsoftmax.options import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LANGUAGES = {"console", "python", "text"}
FOLDERS = ("", "fastsoftmax", "fastsoftmax/training", "tests", "bench", "examples")
# What the examples of a document import beside what every test does.
NEEDED = {"export.md": ("onnx", "onnxruntime", "duckdb"), "plots.md": ("matplotlib",)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def fences(document: Path) -> list[tuple[str, str]]:
    """Return the language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """Return each `$ command` of a console block with the lines of output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Return a line of output with every number and run of blanks alike, whatever the machine."""
    return " ".join(re.sub(r"\d[\d,.]*", "0", line).split())


def check_make(command: str) -> None:
    """Check that each target is there; running them is the job of make itself."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in shlex.split(command, comments=True)[1:]:
        assert target in targets, f"{command}: the Makefile has no such target"


def check_install(command: str) -> None:
    """Check that the extras it asks for are in pyproject.toml."""
    for extras in re.findall(r"\[([\w,]+)\]", command):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), command


def run_command(command: str, shown: list[str], folder: Path) -> None:
    """Run a command as a user would; the lines shown must come out, but for their numbers."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    printed = iter([shape(line) for line in done.stdout.splitlines()])
    for line in shown:
        assert shape(line) in printed, f"{command} did not print {line!r}, but:\n{done.stdout}"


@pytest.fixture
def playground(tmp_path: Path) -> Path:
    """A folder with the examples, and with this tree's `fastsoftmax` and `python` on its path."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    programs = {"fastsoftmax": "-m fastsoftmax", "python": ""}
    (tmp_path / "bin").mkdir()
    for name, arguments in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_every_line_of_python_runs(document, playground, monkeypatch):
    for package in NEEDED.get(document.name, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(playground)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {"__name__": "__main__"}
    for language, block in fences(document):
        assert language in LANGUAGES, f"a block of {document.name} in {language!r} is not checked"
        if language == "python":
            exec(compile(block, document.name, "exec"), names)
        for command, shown in commands(block) if language == "console" else ():
            if command.startswith("make"):
                check_make(command)
            elif re.match(r"(python -m )?pip install ", command):
                check_install(command)
            else:
                run_command(command, shown, playground)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_that_a_document_names_is_there(document):
    for name in set(re.findall(r"`([\w/.-]+\.(?:py|sh))\b", document.read_text())):
        known = "NAME" in name or any((ROOT / folder / name).exists() for folder in FOLDERS)
        assert known, f"{document.name}: {name}"


def test_every_promise_names_tests_that_are_there():
    page = (ROOT / "docs/promises.md").read_text()
    _, _, *rows = re.findall(r"^\| (.*?) \| (.*?) \|", page, re.MULTILINE)
    for promise, tests in rows:
        named = re.findall(r"`((?:bench/)?[\w/]+\.py)`", tests)
        assert named, f"{promise}: no test is named"
        for name in named:
            folder = ROOT if name.startswith("bench/") else ROOT / "tests"
            assert (folder / name).is_file(), f"{promise}: {name}"


def test_the_files_to_read_first_are_eight():
    design = (ROOT / "docs/design.md").read_text()
    listed = re.findall(r"^\d\. `(.*?)`", design, re.MULTILINE)
    assert len(listed) == 8
    assert all((ROOT / path).is_file() for path in listed)


def test_every_option_is_documented_with_its_default():
    table = (ROOT / "docs/options.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", table, re.MULTILINE))
    assert list(documented) == list(OPTIONS)
    for option in OPTIONS.values():
        shown, want = documented[option.name], str(option.default)
        assert shown == want, f"{option.name}: the document says {shown}, the code {want}"


def test_the_version_is_the_same_everywhere():
    version = fastsoftmax.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()

"""How the documents become a site: `make docs` builds it, and warns of nothing."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

from fastsoftmax.version import __version__

project = "fastsoftmax"
author = "the fastsoftmax developers"
copyright = "the fastsoftmax developers"  # noqa: A001 - the name that Sphinx asks for
release = version = __version__

# The source is the folder above: its documents link each other as they lie there.
root_doc = "docs/index"
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "docs/*.rst", "examples/*.md",
    "examples/data/*.md", "bench/*.md",
]  # fmt: skip
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["toc.not_included"]  # a licence that only its data refer to

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "furo"
html_title = f"fastsoftmax {__version__}"
html_show_sphinx = False


def as_written(lines: list[str]) -> list[str]:
    """Return a docstring in the words of its author: what it says of an argument is one item."""
    found: list[str] = []
    in_item = False
    for line in lines:
        text = re.sub(r"([\\*|_])", r"\\\1", line.strip())
        text = re.sub(r"`([^`]+)`", lambda code: f"``{code[1]}``".replace("\\", ""), text)
        argument = re.fullmatch(r"([\w\\, ]+): (.+)", text) if not line.startswith(" ") else None
        if argument:
            found += ["", f"- **{argument[1].strip()}**: {argument[2]}"]
        elif in_item and line.startswith(" "):
            found.append(f"  {text}")
        else:
            found += ["", text] if in_item and text else [text]
        in_item = bool(argument) or (in_item and line.startswith(" "))
    return [*found, ""]


def setup(app: Sphinx) -> None:
    """Have docstrings, which are plain sentences, read as such."""

    def process(app: Sphinx, what: str, name: str, thing: object, options: object,
                lines: list[str]) -> None:  # fmt: skip
        lines[:] = as_written(lines)

    app.connect("autodoc-process-docstring", process)

"""The only place that loads Arrow's functions, and not before one is called: it takes 0.05 s."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Return the function of pyarrow.compute of this name."""
    return getattr(import_module("pyarrow.compute"), name)

"""The only place that says what is in a model or a data set, as facts that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

from fastsoftmax.model import load
from fastsoftmax.model_file import looks_like_model


def is_model(path: str) -> bool:
    """Say whether a path is meant to be a model rather than data."""
    return path.endswith(".safetensors") or looks_like_model(path)


def describe_model(path: str) -> dict[str, Any]:
    """Return what a model's file holds, but for the weights."""
    model = load(path)
    columns = model.columns or ()
    return {
        "dtype": str(model.dtype),
        "kind": model.classes_.kind,
        "classes": list(model.classes_.values),
        "n_features": model.n_features,
        "columns": [{"name": c.name, "width": c.width} for c in columns],
        "history": model.history,
        "record": model.record,
    }


def describe_data(data: str | list[str], target: str | None = None) -> dict[str, Any]:
    """Return the size, the columns and, with a target, the count of each class of a data set."""
    from fastsoftmax.data.outline import count_values, outline

    found = outline(data)
    described: dict[str, Any] = {
        "rows": found.rows,
        "files": found.files,
        "pieces": found.pieces,
        "columns": [{"name": name, "type": kind} for name, kind in found.columns],
    }
    if target is not None:
        counts = count_values(data, target)
        described["classes"] = [{"class": _plain(value), "rows": rows} for value, rows in counts]
    return described


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is no number, truth or text becomes text."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, int | float | str | None) and is_finite else str(value)

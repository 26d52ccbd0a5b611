"""The only place that says what is in a model or a data set, as facts that JSON can hold."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastsoftmax.model.file import looks_like_model
from fastsoftmax.model.model import load

if TYPE_CHECKING:
    from fastsoftmax.data.appraise import Appraisal


def is_model(path: str) -> bool:
    """Say whether a path is meant to be a model rather than data."""
    return path.endswith(".safetensors") or looks_like_model(path)


def describe_model(path: str, top: int | None = None) -> dict[str, Any]:
    """Return what a model's file holds; of the weights the largest of each class (`top`, or 5)."""
    model = load(path)
    columns = model.columns or ()
    return {
        "dtype": str(model.dtype),
        "kind": model.classes_.kind,
        "classes": list(model.classes_.values),
        "n_features": model.n_features,
        "columns": [{"name": c.name, "width": c.width} for c in columns],
        "weights_per": "unit" if model.deviations is None else "standard deviation",
        "top_features": [
            {"class": label, "features": [{"name": name, "weight": w} for name, w in ranked]}
            for label, ranked in model.top_features(5 if top is None else top).items()
        ],
        "history": model.history,
        "record": model.record,
    }


def describe_data(
    data: str | list[str], target: str | None = None, validation: Any = None
) -> dict[str, Any]:
    """Return what a data set holds, what training on it would take, and what would go wrong.

    Its size, columns and ranges; with a target the count of each class. Where there are numbers:
    how fast they read, measured on the first rows; what packing would buy; the memory and the time
    of a run with default options, estimated from that. validation: further data, which should be
    like these, and not of them.
    """
    from fastsoftmax.data.appraise import appraise, numeric_columns, ranges
    from fastsoftmax.data.outline import count_values, outline
    from fastsoftmax.data.suspects import suspects

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
    names = numeric_columns(data, target)
    if names and found.rows:
        described["ranges"] = [asdict(column) for column in ranges(data, names)]
        appraisal = appraise(data, names)
        described["reading"] = asdict(appraisal)
        described["run"] = _forecast(appraisal, found.rows, len(described.get("classes", ())))
    if found.rows:
        described["warnings"] = [asdict(each) for each in suspects(data, target, validation)]
    return described


def _forecast(appraisal: Appraisal, rows: int, classes: int) -> dict[str, Any]:
    """Return what a run with default options would take, as far as it can be told."""
    from fastsoftmax.data.loading.shuffle import ALL_SHARE, ROW_OVERHEAD, WINDOW_SHARE
    from fastsoftmax.options import TrainOptions

    options = TrainOptions()
    memory, row = options.reading.memory_bytes, appraisal.row_bytes + ROW_OVERHEAD
    fits = rows * row <= ALL_SHARE * memory
    held = rows * row if fits else int(2 * WINDOW_SHARE * memory)
    weights = 4 * max(classes, 2) * appraisal.features
    seconds = rows / appraisal.rows_per_second
    return {
        "memory": options.reading.memory,
        "fits_in_memory": fits,
        "window_rows": rows if fits else int(WINDOW_SHARE * memory) // row,
        "bytes_of_rows": held,
        "bytes_of_weights": weights,
        "seconds_to_read": seconds / options.reading.reader_count,
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is no number, truth or text becomes text."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if isinstance(value, int | float | str | None) and is_finite else str(value)

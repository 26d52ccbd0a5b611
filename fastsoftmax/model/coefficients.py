"""The only place that lays out what a model learnt for other programs: weights in raw units."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from fastsoftmax.errors import OptionError
from fastsoftmax.model.parameters import Parameters

INTERCEPT = "intercept"


def names_of(model: Parameters) -> list[str]:
    """Return what the d features are called, `X[0]` and so on where they have no names."""
    return list(model.feature_names or (f"X[{j}]" for j in range(model.n_features)))


def table_of(model: Parameters) -> dict[str, Any]:
    """Return columns class, feature and weight: of each class its intercept, then its weights."""
    coef, intercept = model.raw()
    K, d = coef.shape
    names = [INTERCEPT, *names_of(model)]
    return {
        "class": [label for label in model.classes.values for _ in range(d + 1)],
        "feature": names * K,
        "weight": np.column_stack([intercept, coef]).ravel(),
    }


def json_bytes(model: Parameters) -> bytes:
    """Return all that is needed to score a row, as one JSON object."""
    coef, intercept = model.raw()
    facts = {
        "classes": list(model.classes.values),
        "kind": model.classes.kind,
        "features": names_of(model),
        "nulls": model.nulls,
        "columns": [
            {
                "name": column.name,
                "width": column.width,
                "categories": column.categories and list(column.categories.values),
                "fill": column.fill and list(column.fill),
                "indicator": column.indicator,
            }
            for column in model.columns or ()
        ],
        "intercept": intercept.tolist(),
        "coef": coef.tolist(),
    }
    return json.dumps(facts, allow_nan=False).encode()


def npz_bytes(model: Parameters) -> bytes:
    """Return the arrays coef, intercept, classes and features, none of which needs pickle."""
    coef, intercept = model.raw()
    stream = io.BytesIO()
    np.savez(
        stream,
        coef=coef,
        intercept=intercept,
        classes=_fixed("class", model.classes.values, model.classes.kind),
        features=_fixed("feature", names_of(model), "string"),
    )
    return stream.getvalue()


def _fixed(what: str, values: Any, kind: str) -> np.ndarray:
    """Return values as an array; text as unicode, from whose end NumPy strips null characters."""
    if kind != "string":
        return np.array(values, dtype=kind)
    for value in values:
        if value.endswith("\0"):
            raise OptionError(
                f"format npz drops the null character that the {what} {value!r} ends with; export"
                " to json or parquet"
            )
    return np.array(values, dtype=np.str_)

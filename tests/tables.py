"""Tables of every layout, made from a NumPy reference, and the way to read a Source back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

ROWS, WIDTH = 23, 3
DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bool"),
]
LAYOUTS = ["scalars", "fixed", "list", "large_list", "tensor", "mixed"]


def matrix(dtype, rows=ROWS, width=WIDTH):
    """Return numbers that differ in every place, as far as the dtype allows."""
    numbers = np.random.default_rng(5).integers(0, 100, (rows, width))
    return (numbers % 2 == 1) if dtype == "bool" else numbers.astype(dtype)


def as_list(X, layout):
    """Return the rows of X as an Arrow array of lists."""
    items, width = pa.array(X.ravel()), X.shape[1]
    fixed = pa.FixedSizeListArray.from_arrays(items, width)
    if layout == "tensor":
        kind = pa.fixed_shape_tensor(items.type, [width])
        return pa.ExtensionArray.from_storage(kind, fixed)
    if layout == "fixed":
        return fixed
    of = pa.list_ if layout == "list" else pa.large_list
    return fixed.cast(of(items.type))


def feature_columns(X, layout):
    """Return the columns that hold X in this layout, by name."""
    if layout == "scalars":
        return {f"x{j}": pa.array(X[:, j]) for j in range(X.shape[1])}
    if layout == "mixed":
        first, *others = feature_columns(X[:, 1:], "scalars").items()
        return dict([first, ("v", as_list(X[:, :1], "fixed")), *others])
    return {"v": as_list(X, layout)}


def mixed_order(X):
    """Return X with its columns where the layout `mixed` puts them."""
    return X[:, [1, 0, *range(2, X.shape[1])]]


def table(X, layout="scalars", **more):
    """Return a table of X, of labels y = t mod 3 and of `more` columns."""
    y = np.arange(len(X)) % 3
    return pa.table({**feature_columns(X, layout), "y": y, **more})


def read(source, classes=None, order=None):
    """Return all features (rows, d) and labels that a source yields."""
    chunks = list(source.chunks(classes, order))
    X = np.concatenate(
        [np.concatenate([part.matrix() for part in chunk.parts], axis=1) for chunk in chunks]
    )
    y = None if classes is None else np.concatenate([chunk.labels for chunk in chunks])
    return X, y

"""The only place that looks values up: where each of them stands in a list of values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.values import as_arrow, as_numpy

SPAN = 2**16  # integers so near each other are looked up in a table


def positions_in(known: pa.Array, values: pa.Array) -> np.ndarray:
    """Return where values (n,) stand in `known`, int32; -1 for those that do not. No nulls."""
    if types.is_integer(values.type) and values.type == known.type:
        return _of_integers(as_numpy(known), as_numpy(values))
    found = pc.index_in(values, value_set=known)
    at = as_numpy(found)
    return np.where(as_numpy(pc.is_null(found)), np.int32(-1), at) if found.null_count else at


def _of_integers(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not known.size:
        return np.full(values.size, -1, np.int32)
    order = np.argsort(known).astype(np.int32)
    ranked = known[order]
    span = int(ranked[-1]) - int(ranked[0])
    if span < SPAN:
        # Unsigned, what is below the first wraps round to numbers beyond the last.
        unsigned = np.dtype(f"u{values.itemsize}")
        beyond = min(span + 1, int(np.iinfo(unsigned).max))
        table = np.full(span + 2, -1, np.int32)
        table[(ranked - ranked[0]).view(unsigned)] = order
        return table[np.minimum((values - ranked[0]).view(unsigned), unsigned.type(beyond))]
    at = np.minimum(np.searchsorted(ranked, values), ranked.size - 1)
    return np.where(ranked[at] == values, order[at], np.int32(-1))


def joined(known: pa.Array, values: pa.Array) -> pa.Array:
    """Return `known` and after it, in the order in which they turn up, values that it lacks."""
    new = positions_in(known, values) < 0
    if not new.any():
        return known
    if types.is_integer(values.type) and values.type == known.type:
        return pa.concat_arrays([known, as_arrow(_distinct(as_numpy(values)[new]))])
    return pa.concat_arrays([known, pc.unique(values.filter(as_arrow(new)))])


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return values (n,) without repetitions; np.unique loads what takes 0.01 s."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    first = np.append(True, ranked[1:] != ranked[:-1])
    return values[np.sort(order[first])]

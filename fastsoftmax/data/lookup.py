"""The only place that looks values up: where each of them stands in a list of values."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.hashed import hashes_of
from fastsoftmax.data.values import as_arrow, as_numpy

SPAN = 2**16  # integers so near each other are looked up in a table
MANY = 2**12  # words, of which hashes are kept: Arrow hashes all of them at each call


class Known:
    """Values (n,) that others are looked up among: what that takes is made once.

    values: integers, or what Arrow compares; all distinct, without nulls.
    """

    def __init__(self, values: pa.Array, *, is_kept: bool = True) -> None:
        """is_kept: for more than one look, which pays for what makes the others short."""
        self.values, self._is_kept = values, is_kept

    def find(self, values: pa.Array) -> np.ndarray:
        """Return where values without nulls stand here, int32; -1 for those that do not."""
        if types.is_integer(values.type) and values.type == self.values.type:
            return self._of_integers(as_numpy(values))
        is_many = len(self.values) >= MANY and self._is_kept
        if is_many and values.type == self.values.type and self._hashes is not None:
            return self._of_words(values, *self._hashes)
        found = pc.index_in(values, value_set=self.values)
        at = as_numpy(found)
        return np.where(as_numpy(pc.is_null(found)), np.int32(-1), at) if found.null_count else at

    @cached_property
    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """Integers in their order, and where each stands."""
        known = as_numpy(self.values)
        order = np.argsort(known).astype(np.int32)
        return known[order], order

    @cached_property
    def _table(self) -> np.ndarray:
        """Where each integer from the least to one beyond the largest stands."""
        ranked, order = self._ranked
        table = np.full(int(ranked[-1]) - int(ranked[0]) + 2, -1, np.int32)
        table[(ranked - ranked[0]).view(np.dtype(f"u{ranked.itemsize}"))] = order
        return table

    def _of_integers(self, values: np.ndarray) -> np.ndarray:
        if not len(self.values):
            return np.full(values.size, -1, np.int32)
        ranked, order = self._ranked
        span = int(ranked[-1]) - int(ranked[0])
        if span < SPAN:
            # Unsigned, what is below the first wraps round to numbers beyond the last.
            unsigned = np.dtype(f"u{values.itemsize}")
            beyond = min(span + 1, int(np.iinfo(unsigned).max))
            return np.asarray(
                self._table[np.minimum((values - ranked[0]).view(unsigned), unsigned.type(beyond))]
            )
        at = np.minimum(np.searchsorted(ranked, values), ranked.size - 1)
        return np.where(ranked[at] == values, order[at], np.int32(-1))

    @cached_property
    def _hashes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Hashes in their order and one above all, where each stands, and where those begin that
        share their first bits; None where two words have one hash.
        """
        hashes = hashes_of(self.values)
        order = np.argsort(hashes)
        ranked = hashes[order]
        if (ranked[1:] == ranked[:-1]).any():
            return None
        first = (ranked >> _shift(len(ranked))).astype(np.int64)
        counts = np.bincount(first, minlength=1 << len(ranked).bit_length())
        begins = np.cumsum(counts) - counts
        return np.append(ranked, ~np.uint64(0)), order.astype(np.int32), begins.astype(np.int32)

    def _of_words(
        self, values: pa.Array, ranked: np.ndarray, order: np.ndarray, begins: np.ndarray
    ) -> np.ndarray:
        hashes = hashes_of(values)
        at = begins[(hashes >> _shift(len(order))).astype(np.int64)]
        left = np.flatnonzero(ranked[at] < hashes)
        while left.size:  # two or three rounds
            at[left] += 1
            left = left[ranked[at[left]] < hashes[left]]
        alike = np.flatnonzero((ranked[at] == hashes) & (at < len(order)))
        places = order[at[alike]]
        same = pc.equal(self.values.take(as_arrow(places)), values.take(as_arrow(alike)))
        found = np.full(len(values), -1, np.int32)
        found[alike] = np.where(as_numpy(same), places, np.int32(-1))
        return found


def _shift(count: int) -> np.uint64:
    """Return by how many bits hashes of so many words are cut to as many beginnings."""
    return np.uint64(64 - count.bit_length())


def positions_in(known: pa.Array, values: pa.Array) -> np.ndarray:
    """Return where values (n,) stand in `known`, int32; -1 for those that do not. No nulls."""
    return Known(known, is_kept=False).find(values)


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

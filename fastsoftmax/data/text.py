"""The only place that turns columns of text into features, and counts which there are."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, cached_property
from typing import Any
from unicodedata import normalize
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.parts import Sparse
from fastsoftmax.data.values import Where, as_numpy
from fastsoftmax.data.vocabulary import NGRAMS, NORMS, Recipe, Vocabulary
from fastsoftmax.errors import DataError
from fastsoftmax.kernels import ngrams, text_counts, text_features
from fastsoftmax.kernels.characters import character_table
from fastsoftmax.kernels.tokens import TextBytes

MOST_BYTES = 2**22  # of one text
LEAST_ROOM = 2**10  # for n-grams at first


def texts_of(array: pa.Array, recipe: Recipe, subject: str, where: Where) -> TextBytes:
    """Return strings, of which nulls are empty, as kernels read them."""
    if recipe.normalize is not None:
        with suppress(pa.ArrowInvalid, UnicodeDecodeError):  # no UTF-8: the kernel finds where
            array = _normalized(array, recipe.normalize)
    dtype = np.int64 if types.is_large_string(array.type) else np.int32
    _, stored, data = array.buffers()
    if len(array) == 0 or stored is None:
        ends = np.zeros(len(array) + 1, np.int64)
    else:
        size = np.dtype(dtype).itemsize
        ends = np.frombuffer(stored, dtype, len(array) + 1, array.offset * size).astype(np.int64)
    starts, stops = ends[:-1].copy(), ends[1:].copy()
    if array.null_count:  # what stands in their slots is anything
        missing = as_numpy(pc.is_null(array))
        stops[missing] = starts[missing]
    lengths = stops - starts
    longest = int(lengths.argmax()) if lengths.size else 0
    if lengths.size and lengths[longest] > MOST_BYTES:
        raise DataError(
            f"{where(longest)}: {subject} is a text of {lengths[longest]:,} bytes, more than"
            f" {MOST_BYTES:,}: cut it into several rows, or leave it out."
        )
    held = np.frombuffer(data if data is not None and data.size else b"\0", np.uint8)
    held.flags.writeable = False  # of whatever buffers: one kind of array is one compilation
    return TextBytes(held, starts, stops, character_table(recipe.lower))


def _normalized(array: pa.Array, form: Any) -> pa.Array:
    """Return strings in a normal form of Unicode."""
    if form.endswith("D") or _arrow_composes():
        return pc.utf8_normalize(array, form=form)
    texts = (None if text is None else normalize(form, text) for text in array.to_pylist())
    return pa.array(texts, array.type)


@cache
def _arrow_composes() -> bool:
    """Return whether Arrow composes letters and accents, which up to pyarrow 21 it does not."""
    return bool(pc.utf8_normalize(pa.array(["e\u0301"]), form="NFC")[0].as_py() == "\u00e9")


def _refuse_bytes(texts: TextBytes, row: int, byte: int, subject: str, where: Where) -> None:
    """Raise DataError that names the byte of a text that is no UTF-8, where there is one."""
    if byte >= 0:
        found = int(texts.data[texts.starts[row] + byte])
        raise DataError(
            f"{where(row)}: {subject} is no UTF-8: byte {byte} of it is 0x{found:02x}. Decode it in"
            " the encoding that it is in, and write it anew."
        )


def _longest(texts: TextBytes) -> int:
    return int((texts.stops - texts.starts).max(initial=0))


# Of a million n-grams it takes 0.2 s to make, and each call of `predict` needs it.
_lookups: WeakKeyDictionary[Vocabulary, text_features.Lookup] = WeakKeyDictionary()


class TextEncoder:
    """A vocabulary, and how texts become its features."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Encode by `vocabulary`."""
        self._vocabulary, self._recipe = vocabulary, vocabulary.recipe
        self._sizes = ngrams.Sizes(*self._recipe.sizes)
        tf = self._recipe.tf
        self._weighting = text_features.Weighting(
            float(tf == "log"), float(tf == "count"), NORMS[self._recipe.norm]
        )

    @cached_property
    def _lookup(self) -> text_features.Lookup:
        known = _lookups.get(self._vocabulary)
        if known is not None:
            return known
        keys = self._vocabulary.indices
        keys = self._keys() if keys is None else keys
        pairs = np.full((1 << (2 * len(keys)).bit_length(), 2), -1, np.int64)
        text_features.place_keys(pairs, np.ascontiguousarray(keys))
        return _lookups.setdefault(
            self._vocabulary, text_features.Lookup(pairs, self._recipe.bits or 0)
        )

    def _keys(self) -> np.ndarray:
        """Return the hashes of the n-grams that names are."""
        names, offsets = self._vocabulary.names, self._vocabulary.offsets
        assert names is not None
        assert offsets is not None
        held = np.append(names, np.uint8(0))
        held.flags.writeable = False
        texts = TextBytes(held, offsets[:-1].copy(), offsets[1:].copy(), character_table(False))
        hashes = np.empty(len(self._vocabulary), np.int64)
        tokens, _ = ngrams.room_for(_longest(texts), self._sizes)
        ngrams.hash_names(hashes, texts, tokens)
        return hashes

    def __call__(self, array: pa.Array, subject: str, where: Where) -> Sparse:
        """Return the features of strings, or raise DataError with the row that has none."""
        texts = texts_of(array, self._recipe, subject, where)
        scratch = ngrams.room_for(_longest(texts), self._sizes)
        room = max(LEAST_ROOM, len(scratch[1].hashes))
        indptr = np.zeros(len(array) + 1, np.int64)
        entries = text_features.Entries(
            indptr[1:], np.empty(room, np.int32), np.empty(room, np.float32)
        )
        done = used = 0
        while done < len(array):
            done, used, byte = text_features.encode(
                entries, done, used, texts, self._sizes, self._lookup, self._weighting, *scratch
            )
            if done < len(array):
                _refuse_bytes(texts, done, byte, subject, where)
                # For as many more as the rows so far had, and for the longest there can be.
                room = max(2 * room, used * len(array) // max(done, 1) * 9 // 8)
                index, value = (_longer(array, room) for array in entries[1:])
                entries = text_features.Entries(entries.ends, index, value)
        index, value = (array[:used].copy() for array in entries[1:])
        return Sparse(indptr, index, value, len(self._vocabulary))


def _longer(array: np.ndarray, rows: int) -> np.ndarray:
    """Return an array of more rows that begins as `array` does."""
    grown = np.empty((rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


class NgramCount:
    """In how many rows n-grams are; over parts of the rows, counts merge by `+`.

    There are `limit` n-grams at most: where a row makes them more, those of the fewest rows are
    forgotten, as few as it takes to keep half of that. A forgotten n-gram may be found anew.
    """

    def __init__(self, recipe: Recipe, limit: int) -> None:
        """Count as `recipe` says."""
        self.recipe, self.limit = recipe, limit
        self.rows = 0  # that were counted
        self.forgotten = 0  # n-grams in so many rows or fewer were
        self._sizes = ngrams.Sizes(*recipe.sizes)
        self._counter = _counter_of(np.empty((0, 3), np.int64), np.empty(0, np.uint8), 0, 0)

    def add(self, array: pa.Array, trained: np.ndarray, subject: str, where: Where) -> None:
        """Count the strings of those rows that are trained on."""
        texts = texts_of(array, self.recipe, subject, where)
        scratch = ngrams.room_for(_longest(texts), self._sizes)
        done, rows = 0, np.ascontiguousarray(trained)
        self.rows += int(np.count_nonzero(rows))
        while done < len(array):
            done, byte = text_counts.count_rows(
                self._counter, done, self.limit, rows, texts, self._sizes, self.recipe.bits or 0,
                *scratch,
            )  # fmt: skip
            if done < len(array):
                _refuse_bytes(texts, done, byte, subject, where)
            if self._entries > self.limit:
                self._forget()
            elif done < len(array):
                self._grow()

    @property
    def _entries(self) -> int:
        return int(self._counter.totals[text_counts.ENTRIES])

    @property
    def collisions(self) -> float:
        """The share of occurrences whose hashes have the index of an n-gram seen before them."""
        mass, collided = self._counter.totals[[text_counts.MASS, text_counts.COLLIDED]].tolist()
        return collided / mass if mass else 0.0

    def _known(self) -> np.ndarray:
        """Return the entries (n, 3) there are."""
        return self._counter.entries[: self._entries]

    def _name_ends(self) -> np.ndarray:
        """Return where the names of entries begin and end: (n + 1,)."""
        ends = self._known()[:, 2] if self.recipe.bits is None else np.zeros(self._entries)
        return np.concatenate([[0], ends]).astype(np.int64)

    def _keep(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the entries of these numbers (n,), and their names, one after the other."""
        entries = self._known()[chosen]
        if self.recipe.bits is not None:
            return entries, np.empty(0, np.uint8)
        names, offsets = _names_of(self._counter.names, self._name_ends(), chosen)
        entries[:, 2] = offsets[1:]
        return entries, names

    def _grow(self) -> None:
        """Make room for more n-grams, more names, or both."""
        held, totals = self._counter, self._counter.totals
        short = 2 * totals[text_counts.ENTRIES] >= len(held.entries)
        short_of_names = (
            2 * totals[text_counts.NAMES] >= len(held.names) and self.recipe.bits is None
        )
        entries, names = self._known(), held.names[: totals[text_counts.NAMES]]
        rows = len(held.entries) * (2 if short or not short_of_names else 1)
        size = len(held.names) * (2 if short_of_names or not short else 1)
        self._counter = _counter_of(entries, names, rows, size, totals)

    def _forget(self) -> None:
        """Keep half of the limit at most, of those in the most rows."""
        rows = self._known()[:, 1]
        least = int(np.partition(rows, len(rows) - self.limit // 2 - 1)[-self.limit // 2 - 1]) + 1
        self.forgotten = max(self.forgotten, least - 1)
        held = self._counter
        entries, names = self._keep(np.flatnonzero(rows >= least))
        totals = held.totals.copy()
        self._counter = _counter_of(entries, names, len(held.entries), len(held.names), totals)

    def __add__(self, other: NgramCount) -> NgramCount:
        """Return the counts of the rows of both."""
        merged = NgramCount(self.recipe, self.limit)
        merged.rows = self.rows + other.rows
        merged.forgotten = max(self.forgotten, other.forgotten)
        mine, theirs = self._known(), other._known()
        keys, firsts, places = np.unique(
            np.concatenate([mine[:, 0], theirs[:, 0]]), return_index=True, return_inverse=True
        )
        rows = np.zeros(len(keys), np.int64)
        np.add.at(rows, places.reshape(-1), np.concatenate([mine[:, 1], theirs[:, 1]]))
        order = np.argsort(firsts)  # as they were first seen
        firsts = firsts[order]
        new = firsts >= len(mine)
        ours, our_names = self._keep(firsts[~new])
        further, their_names = other._keep(firsts[new] - len(mine))
        if self.recipe.bits is None:
            further[:, 2] += len(our_names)
        entries = np.concatenate([ours, further])
        entries[:, 1] = rows[order]
        totals = self._counter.totals + other._counter.totals
        names = np.concatenate([our_names, their_names])
        merged._counter = _counter_of(entries, names, len(entries), len(names), totals)
        if merged._entries > merged.limit:
            merged._forget()
        return merged

    def vocabulary(self, min_count: int, most: int) -> Vocabulary:
        """Return those in `min_count` rows or more, those of most rows first, `most` of them.

        Among those in equally many rows, the order is that of their hashes: a cut at `most` then
        takes no side for the rows that came first, or for an alphabet.
        """
        known, chosen = self._known(), self._chosen(min_count, most)
        if self.recipe.bits is not None:
            indices = known[chosen, 0].copy()
            return Vocabulary(self.recipe, indices=indices, collisions=self.collisions)
        names, offsets = _names_of(self._counter.names, self._name_ends(), chosen)
        return Vocabulary(self.recipe, names, offsets)

    def _chosen(self, min_count: int, most: int) -> np.ndarray:
        """Return the numbers of the entries that are features, in their order."""
        known = self._known()
        enough = np.flatnonzero(known[:, 1] >= min_count)
        order = np.lexsort((known[enough, 0], -known[enough, 1]))
        return enough[order[:most]]

    def mean_features(self, min_count: int, most: int) -> float:
        """Return how many features of such a vocabulary a row has in the mean."""
        found = self._known()[self._chosen(min_count, most), 1]
        return float(found.sum()) / max(self.rows, 1)


def _counter_of(
    entries: np.ndarray,
    names: np.ndarray,
    rows: int,
    size: int,
    totals: np.ndarray | None = None,
) -> text_counts.Counter:
    """Return a counter that has these entries and names, and room for so many in all."""
    totals = np.zeros(4, np.int64) if totals is None else totals.copy()
    totals[text_counts.ENTRIES], totals[text_counts.NAMES] = len(entries), len(names)
    rows = max(rows, LEAST_ROOM)
    counter = text_counts.Counter(
        _longer(entries, rows),
        _longer(names, max(size, 16 * LEAST_ROOM)),
        np.full(1 << (2 * rows - 1).bit_length(), -1, np.int32),
        totals,
    )
    text_counts.place_entries(counter)
    return counter


def _names_of(
    names: np.ndarray, offsets: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen names one after the other, and where each begins and ends."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(names)]
    held = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)
    taken = held.take(pa.array(chosen))
    _, ends, joined = taken.buffers()
    offsets = np.frombuffer(ends, np.int64, len(taken) + 1).copy()
    size = int(offsets[-1])
    return np.frombuffer(joined or b"", np.uint8, size).copy(), offsets


def look_at_nothing(*, counts: bool = True, named: bool = True) -> None:
    """Call each kernel of texts on a text, for whoever notes which kernels there are.

    counts: those too that count which n-grams there are. named: those too of n-grams that are known
    by their names.
    """
    texts = texts_of(pa.array(["a"]), NGRAMS, "", str)
    sizes = ngrams.Sizes(*NGRAMS.sizes)
    tokens, found = ngrams.room_for(1, sizes)
    one, keys = np.ones(1, np.bool_), np.zeros(1, np.int64)
    if counts:
        counter = _counter_of(np.empty((0, 3), np.int64), np.empty(0, np.uint8), 0, 0)
        text_counts.count_rows(counter, 0, 1, one, texts, sizes, 0, tokens, found)
    if named:
        ngrams.hash_names(keys, texts, tokens)
    lookup = text_features.Lookup(np.full((2, 2), -1, np.int64), 0)
    text_features.place_keys(lookup.pairs, keys)
    entries = text_features.Entries(np.zeros(1, np.int64), np.zeros(1, np.int32), np.zeros(1, "f4"))
    weighting = text_features.Weighting(0.0, 0.0, 0)
    text_features.encode(entries, 0, 0, texts, sizes, lookup, weighting, tokens, found)

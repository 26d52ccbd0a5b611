"""The only place that says what in data will go wrong: leaks, ids, copies, rare classes, drift."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastsoftmax.data.glance import Glance, GlancedColumns, Whole
from fastsoftmax.data.outline import count_values
from fastsoftmax.facts import dataclass

NEARLY_EMPTY = 0.95  # of the rows are null
LEAST_ROWS = 10  # of a class
GIVEN_AWAY = 0.1  # of the loss of guessing: a column that alone does better tells the target
BINS = 32  # of a column of numbers
DRIFTED = 0.1  # the total variation between two samples, above what chance makes
MOST_HASHES = 2**20  # rows of the validation data that are looked for in others
LARGE = 2**31  # what numbers of keys often reach, and counts seldom
KEYS = re.compile(r"(^|[_\W])(id|key|uuid|guid|index|idx|no|nr|number)$|[a-z]I[dD]$", re.IGNORECASE)


@dataclass(frozen=True)
class Suspect:
    """What may go wrong: a kind, the column it concerns, and how it shows.

    kind: leak, duplicate, constant, empty, id, rare_class, overlap or drift.
    """

    kind: str
    column: str | None
    detail: str


def suspects(data: Any, target: str | None, validation: Any = None) -> list[Suspect]:
    """Return what will go wrong with a run on files: in two passes, and a look at a sample."""
    columns = GlancedColumns(data)
    sample, whole = columns.sample(), columns.whole()
    names = [name for name in columns.names if name != target]
    found = list(_of_columns(names, whole, columns.rows))
    hopeless = {each.column for each in found if each.kind in ("constant", "empty")}
    left = [name for name in names if name not in hopeless]
    found += _ids(left, sample)
    if target is not None:
        found += _rare_classes(data, target)
        keys = {each.column for each in found if each.kind == "id"}
        if target in sample:
            found += _leaks([name for name in left if name not in keys], target, sample)
    if validation is not None:
        found += _between(columns, sample, GlancedColumns(validation), target)
    return found


def _of_columns(names: Sequence[str], whole: dict[str, Whole], rows: int) -> Iterator[Suspect]:
    """Yield columns that hold nothing, one value, or what another one holds."""
    seen: dict[str, str] = {}
    for name in names:
        facts = whole[name]
        if facts.nulls >= NEARLY_EMPTY * rows:
            share = f"{facts.nulls:,} of {rows:,} rows are null"
            yield Suspect("empty", name, share)
        elif facts.is_constant and not facts.nulls:  # what is missing may tell something
            yield Suspect("constant", name, f"all rows hold {facts.only!r:.60}")
        elif facts.digest in seen:
            yield Suspect("duplicate", name, f'it holds what "{seen[facts.digest]}" holds')
        seen.setdefault(facts.digest, name)


def _ids(names: Sequence[str], sample: dict[str, Glance]) -> Iterator[Suspect]:
    """Yield columns whose values name rows: whole numbers or text, no two alike."""
    for name in names:
        glance = sample[name]
        if not glance.is_key or glance.codes is None:
            continue
        there = glance.codes[glance.codes >= 0]
        if len(there) < 20 or len(np.unique(there)) < len(there):
            continue
        if glance.numbers is None or _look_like_keys(name, glance.numbers):
            what = "texts" if glance.numbers is None else "whole numbers"
            yield Suspect(
                "id", name, f"{len(there):,} {what} that were looked at are all different"
            )


def _look_like_keys(name: str, numbers: np.ndarray) -> bool:
    """Return whether different whole numbers count rows: they rise, are huge, or are called so."""
    there = numbers[~np.isnan(numbers)]
    rises = bool((np.diff(there) > 0).all() or (np.diff(there) < 0).all())
    span = float(there.max() - there.min()) + 1
    is_dense = span <= 2 * len(there)
    return rises or is_dense or span > LARGE or KEYS.search(name) is not None


def _rare_classes(data: Any, target: str) -> Iterator[Suspect]:
    for value, rows in count_values(data, target):
        if rows < LEAST_ROWS and value is not None:
            counted = f"{rows} row" if rows == 1 else f"{rows} rows"
            yield Suspect("rare_class", target, f"class {value!r:.60} has {counted}")


def _leaks(names: Sequence[str], target: str, sample: dict[str, Glance]) -> Iterator[Suspect]:
    """Yield columns each of which tells the target alone, by a model of the one column."""
    y = sample[target].codes
    if y is None and (values := sample[target].numbers) is not None and values.ndim == 1:
        y = np.unique(values, return_inverse=True)[1].reshape(-1)
    if y is None:
        return
    known = y >= 0
    y = np.unique(y[known], return_inverse=True)[1].reshape(-1)
    if len(y) < 2 * LEAST_ROWS or y.max() == 0:
        return
    guessing = _loss(np.zeros(len(y), np.int64), y)
    for name in names:
        x = _cells(sample[name])
        if x is None:
            continue
        loss = _loss(x[known], y)
        if loss < GIVEN_AWAY * guessing:
            yield Suspect(
                "leak", name, f"alone it predicts the target with a log-loss of {loss:.3g}"
                f" (class frequencies: {guessing:.3g})",
            )  # fmt: skip


def _cells(glance: Glance) -> np.ndarray | None:
    """Return the cell (n,) of each value: its own of few values, else a bin; None of vectors."""
    if glance.codes is not None:
        return glance.codes + 1
    if glance.numbers is None or glance.numbers.ndim == 2:
        return None
    return _binned(glance.numbers, edges_of(glance.numbers))


def _binned(numbers: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the bin (n,) of each number, from 1; 0 of NaN."""
    return np.where(np.isnan(numbers), 0, np.searchsorted(edges, numbers, side="right") + 1)


def edges_of(numbers: np.ndarray) -> np.ndarray:
    """Return what parts numbers into bins of about as many each."""
    there = numbers[np.isfinite(numbers)]
    if not len(there):
        return np.zeros(0)
    return np.unique(np.quantile(there, np.arange(1, BINS) / BINS, method="nearest"))


def _loss(x: np.ndarray, y: np.ndarray) -> float:
    """Return the log-loss of frequencies in each cell x (n,), learnt of half of the rows for the
    others and the other way round.
    """
    K, cells = int(y.max()) + 1, int(x.max()) + 1
    halves = [np.arange(len(y)) % 2 == half for half in (0, 1)]
    total = 0.0
    for learnt, asked in (halves, halves[::-1]):
        prior = (np.bincount(y[learnt], minlength=K) + 1.0) / (learnt.sum() + K)
        pairs, counts = np.unique(x[learnt] * K + y[learnt], return_counts=True)
        sizes = np.bincount(x[learnt], minlength=cells)
        wanted = x[asked] * K + y[asked]
        at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        hits = np.where(pairs[at] == wanted, counts[at], 0)
        # A tenth of a row of the whole in each cell: what one cell lacks, the others lend.
        p = (hits + 0.1 * prior[y[asked]]) / (sizes[x[asked]] + 0.1)
        total -= float(np.log(p).sum())
    return total / len(y)


def _between(
    columns: GlancedColumns, sample: dict[str, Glance], others: GlancedColumns, target: str | None
) -> Iterator[Suspect]:
    """Yield what two data sets have in common, and where they differ."""
    shared = [name for name in columns.names if name in others.names]
    features = [name for name in shared if name != target]
    if features:
        yield from _overlap(columns, others, features)
    theirs = others.sample()
    for name in columns.names:
        if name not in others.names:
            yield Suspect("drift", name, "the validation data have no column of this name")
            continue
        distance, chance = _distance(sample[name], theirs[name], columns, others, name)
        if distance > DRIFTED + chance:
            how = _middles(sample[name], theirs[name])
            yield Suspect(
                "drift", name, f"its values differ between the training and the validation data"
                f" (total variation {distance:.2f}{how})",
            )  # fmt: skip


def _overlap(
    columns: GlancedColumns, others: GlancedColumns, names: Sequence[str]
) -> Iterator[Suspect]:
    wanted: list[np.ndarray] = []
    rows = 0
    for hashes in others.row_hashes(names):
        wanted.append(hashes[: max(MOST_HASHES - rows, 0)])
        rows += len(wanted[-1])
    looked_for = np.concatenate(wanted)
    found = np.zeros(len(looked_for), np.bool_)
    for hashes in columns.row_hashes(names):
        found |= np.isin(looked_for, hashes)
    if found.any():
        yield Suspect(
            "overlap", None, f"{int(found.sum()):,} of {rows:,} rows of the validation data have"
            " the features of a row of the training data",
        )  # fmt: skip


def _distance(
    ours: Glance, theirs: Glance, columns: GlancedColumns, others: GlancedColumns, name: str
) -> tuple[float, float]:
    """Return the total variation between two samples of a column, and what chance may make it."""
    if ours.numbers is not None and theirs.numbers is not None:
        if ours.numbers.ndim == 2 or theirs.numbers.ndim == 2:
            return 0.0, 0.0
        edges = edges_of(ours.numbers)
        counts = [
            np.bincount(_binned(numbers, edges), minlength=len(edges) + 2)
            for numbers in (ours.numbers, theirs.numbers)
        ]
    else:
        counts = [np.array(found) for found in _text_counts(columns, others, name)]
    sizes = [max(int(each.sum()), 1) for each in counts]
    shares = [each / size for each, size in zip(counts, sizes, strict=True)]
    distance = 0.5 * float(np.abs(shares[0] - shares[1]).sum())
    used = int(((counts[0] + counts[1]) > 0).sum())
    # The mean of |difference| of two shares p is at most sqrt(2 p (1/n + 1/m) / pi).
    chance = math.sqrt(used * (1 / sizes[0] + 1 / sizes[1]) / (2 * math.pi))
    return distance, 1.5 * chance


def _text_counts(
    columns: GlancedColumns, others: GlancedColumns, name: str
) -> tuple[list[int], list[int]]:
    """Return how often each value of a column of text is in the first rows of both."""
    found: list[dict[Any, int]] = []
    for each in (columns, others):
        counts: dict[Any, int] = {}
        rows = 0
        for batch in each.read():
            for pair in batch[name].value_counts().to_pylist():
                counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
            rows += len(batch[name])
            if rows >= 2**16 or len(counts) > 2**14:
                break
        found.append(counts)
    values = list(dict.fromkeys([*found[0], *found[1]]))
    first, other = ([counts.get(value, 0) for value in values] for counts in found)
    return first, other


def _middles(ours: Glance, theirs: Glance) -> str:
    """Return the medians of two samples of numbers, in words."""
    if ours.numbers is None or theirs.numbers is None:
        return ""
    medians = []
    for numbers in (ours.numbers, theirs.numbers):
        there = numbers[np.isfinite(numbers)]
        medians.append(f"{np.median(there):.4g}" if len(there) else "nothing")
    return f"; medians {medians[0]} and {medians[1]}"

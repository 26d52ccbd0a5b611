"""The only place that says what scoring gives, and from how many rows on kernels give it sooner."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes

# NumPy takes a microsecond a row, 1 ns for each feature and class of it and 0.025 ns for each
# product (10 x 64: 1.0 us, 1,000 x 768: 23 us), more than twice that to judge few classes. The
# kernels take 0.15 us and 19 us, with every thread there is, but are loaded first: in 0.7 s from
# what was kept, in 10 s where they must be compiled.
ROW_SECONDS, NUMBER_SECONDS, PRODUCT_SECONDS = 1e-6, 1e-9, 0.025e-9
LOADING_SECONDS = 0.7
# Of sparse rows it takes 8 ns for each number that is not 0 and class, the kernels 0.4, and
# 1 ns for each weight, which they copy.
SPARSE_SECONDS, COPY_SECONDS = 8e-9, 1e-9


def is_worth(rows: int, K: int, d: int) -> bool:
    """Return whether NumPy would take longer for so many rows than the kernels take to load."""
    a_row = ROW_SECONDS + NUMBER_SECONDS * (K + d) + PRODUCT_SECONDS * K * d
    return rows * a_row > LOADING_SECONDS


def is_worth_for_sparse(rows: int, K: int, d: int, nonzeros: float, are_loaded: bool) -> bool:
    """Return the same of rows of so many numbers that are not 0, in the mean."""
    seconds = rows * (ROW_SECONDS + SPARSE_SECONDS * K * nonzeros)
    return seconds > COPY_SECONDS * K * d + (0.0 if are_loaded else LOADING_SECONDS)


@dataclass(frozen=True)
class Judgement:
    """What is summed over rows whose classes are known: see kernels.scoring.JudgedSums.

    classes: those that labels are encoded against. bins: of confidence. top: of a hit among the so
    many most probable classes; 0 for none. prior (K,): the loss of a row of each class. tabulate:
    whether weights are summed by true and predicted class together.
    """

    classes: Classes
    bins: int
    top: int
    prior: np.ndarray
    tabulate: bool


@dataclass(frozen=True)
class Answer:
    """What a model says of some consecutive rows.

    values: (rows, K) or (rows,), as asked for. piece, start: the piece that the rows are of, and
    the first one's number within it. best: (rows,) the predicted classes by number, where they are
    known already. kept: a record batch of the columns to hand on. dropped: (rows,) bool, those
    without a prediction, or None.
    """

    values: np.ndarray
    piece: int
    start: int
    best: np.ndarray | None = None
    kept: Any = None
    dropped: np.ndarray | None = None

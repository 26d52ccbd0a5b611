"""The only place that sums over rows which classes are taken for which, and how surely.

y (n,) are true classes, guess (n,) the most probable ones, w (n,) positive weights. Sums are
float64, and of two parts of the rows they are added: in one fixed order of parts the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsoftmax.facts import dataclass

BINS = 15  # of confidence, as in Guo et al.
MOST_CONFUSED = 1_000  # classes; the table of more would take more room than most models


@dataclass(frozen=True)
class ClassScore:
    """How well one class is told from the others; 0 where there is nothing to divide by.

    precision: the share of its rows in those taken for it. recall: the share taken for it in its
    rows. f1: their harmonic mean. support: the weight of its rows.
    """

    label: Any
    precision: float
    recall: float
    f1: float
    support: float


@dataclass(frozen=True)
class Bin:
    """Rows of confidence (largest probability) in (lowest, highest]: their mean, how many hit."""

    lowest: float
    highest: float
    rows: int
    weight: float
    confidence: float
    accuracy: float


def ranks(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how many classes stand before each row's own (n,), by logits z (n, K).

    Those are the classes of larger logits and, of equal ones, those that come first: the class
    that is predicted has rank 0.
    """
    own = z[np.arange(len(y)), y][:, None]
    is_earlier = np.arange(z.shape[1]) < y[:, None]
    return ((z > own) | ((z == own) & is_earlier)).sum(axis=1)


class Confusion:
    """Weights of rows by true and predicted class.

    table (K, K): rows of class i taken for j; None for more than MOST_CONFUSED classes.
    """

    def __init__(self, K: int) -> None:
        self.true, self.guessed, self.hits = np.zeros((3, K))
        self.table = np.zeros((K, K)) if K <= MOST_CONFUSED else None

    def add(self, y: np.ndarray, guess: np.ndarray, w: np.ndarray) -> None:
        """Add rows."""
        hit = guess == y
        np.add.at(self.true, y, w)
        np.add.at(self.guessed, guess, w)
        np.add.at(self.hits, y[hit], w[hit])
        if self.table is not None:
            np.add.at(self.table.reshape(-1), y * len(self.table) + guess, w)

    def __add__(self, other: Confusion) -> Confusion:
        """Return the weights of the rows of both."""
        both = Confusion(len(self.true))
        both.true = self.true + other.true
        both.guessed = self.guessed + other.guessed
        both.hits = self.hits + other.hits
        if self.table is not None and other.table is not None:
            both.table = self.table + other.table
        return both

    def scores(self, labels: Sequence[Any]) -> tuple[ClassScore, ...]:
        """Return how well each class is told from the others."""
        precision, recall = _share(self.hits, self.guessed), _share(self.hits, self.true)
        columns = (precision, recall, self._f1(), self.true)
        listed = zip(labels, *(column.tolist() for column in columns), strict=True)
        return tuple(ClassScore(*facts) for facts in listed)

    def macro_f1(self) -> float:
        """Return the mean of f1 over the classes that have rows or predictions."""
        return float(self._f1()[self.true + self.guessed > 0].mean())

    def weighted_f1(self) -> float:
        """Return the mean of f1 over the rows."""
        return float(self._f1() @ self.true / self.true.sum())

    def _f1(self) -> np.ndarray:
        return _share(2 * self.hits, self.true + self.guessed)


class Calibration:
    """Weight, confidence and hits of rows, in BINS equal bins of confidence.

    Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017.
    """

    def __init__(self) -> None:
        self.rows = np.zeros(BINS, np.int64)
        self.weight, self.confidence, self.hits = np.zeros((3, BINS))

    def add(self, confidence: np.ndarray, hit: np.ndarray, w: np.ndarray) -> None:
        """Add rows of confidence (n,) in (0, 1], of which `hit` (n,) says who are right."""
        at = np.ceil(confidence * BINS).astype(np.intp) - 1
        self.rows += np.bincount(at, minlength=BINS)
        self.weight += np.bincount(at, w, BINS)
        self.confidence += np.bincount(at, w * confidence, BINS)
        self.hits += np.bincount(at, w * hit, BINS)

    def __add__(self, other: Calibration) -> Calibration:
        """Return the sums over the rows of both."""
        both = Calibration()
        both.rows = self.rows + other.rows
        both.weight = self.weight + other.weight
        both.confidence = self.confidence + other.confidence
        both.hits = self.hits + other.hits
        return both

    def error(self) -> float:
        """Return the mean over rows of |accuracy - mean confidence| of their bin."""
        return float(np.abs(self.hits - self.confidence).sum() / self.weight.sum())

    def bins(self) -> tuple[Bin, ...]:
        """Return the bins that have rows."""
        edges = (np.arange(BINS + 1) / BINS).tolist()
        confidence = _share(self.confidence, self.weight)
        columns = (self.rows, self.weight, confidence, _share(self.hits, self.weight))
        listed = zip(edges, edges[1:], *(column.tolist() for column in columns), strict=False)
        return tuple(Bin(*facts) for facts in listed if facts[2])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)

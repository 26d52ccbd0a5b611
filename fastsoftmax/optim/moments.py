"""The only place that measures columns: means, deviations, and how far their values reach."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from fastsoftmax.data.parts import Dense, Part
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.measure import add_moments
from fastsoftmax.kernels.workspace import aligned, padded
from fastsoftmax.model.scaling import OF_COLUMNS, Scaling

ROUNDING = 1e-12  # of a magnitude: a first guess of a scale is this at least
ALIKE = 100.0  # times the smallest deviation: up to there one factor serves all columns
FAR = 30.0  # times the width of the middle: such a spread comes from values that are far away
TAILED = 2.0  # times that width: of normal columns the spread is about 0.8 of it
MIDDLE_ROWS = 2048  # that quantiles are taken from
QUANTILE_COLUMNS = 256  # that are looked at at a time
FIRST_ROWS = 256  # on which the first guess of centre and scale is made
BLOCK = 16


@dataclass(frozen=True)
class Moments:
    """What is known of columns (d,) float64: mean, deviation, largest distance from the mean, and
    of some rows the median and the width of the middle 80 %, 0 where that is not known.

    is_sparse: 1 for columns that are measured about 0, 0 for others; None where there are none.
    """

    mean: np.ndarray = field(metadata=OF_COLUMNS)
    deviation: np.ndarray = field(metadata=OF_COLUMNS)
    reach: np.ndarray = field(metadata=OF_COLUMNS)
    median: np.ndarray = field(metadata=OF_COLUMNS)
    width: np.ndarray = field(metadata=OF_COLUMNS)
    is_sparse: np.ndarray | None = field(default=None, metadata=OF_COLUMNS)

    def scaling(
        self, kind: str, dtype: np.dtype[Any], wide: np.ndarray, *, centred: bool, scaled: bool
    ) -> Scaling:
        """Return what brings the columns to one scale; wide (d,): those of more than 24 bits.

        spread: the scale is 1 / sqrt(deviation reach). To divide by the deviation alone lets
        training diverge where a feature is rare (its few values become huge), and to divide by the
        reach leaves columns with a long tail behind. middle: 2 / width about the median, which far
        values cannot move; a column of no width takes the spread. deviation: 1 / deviation.
        auto: the spread, and where that is some times the width, the middle. Unscaled columns share
        one factor.
        """
        spread, centre = np.sqrt(self.deviation) * np.sqrt(self.reach), self.mean
        if kind == "deviation":
            spread = self.deviation
        elif kind != "spread":
            narrow = self.width > 0
            if kind == "auto":
                narrow &= spread > FAR * self.width
            spread = np.where(narrow, self.width / 2, spread)
            centre = np.where(narrow, self.median, centre)
        if not scaled:
            largest = spread.max(initial=0.0) or 1.0
            common = largest * np.sqrt(np.mean(np.square(spread / largest)))
            spread = np.full_like(spread, common)
        # A column that never changes has no scale of its own: any will do.
        spread = np.where(spread > 0, spread, np.where(self.mean != 0, np.abs(self.mean), 1.0))
        centre = centre if centred else np.zeros_like(centre)
        scale = 1.0 / np.maximum(spread, 1e-300)
        limits = np.finfo(dtype)
        near = np.clip(scale, float(limits.tiny), float(limits.max)).astype(dtype)
        with np.errstate(over="ignore"):  # of wide columns, whose centre stays as it is
            centre = np.where(wide, centre, centre.astype(dtype).astype(np.float64))
        return Scaling(centre, np.where(wide, scale, near.astype(np.float64)))

    @property
    def are_alike(self) -> bool:
        """Whether the columns that change are of about one scale."""
        changing = self.deviation[self.deviation > 0]
        return not changing.size or float(changing.max() / changing.min()) < ALIKE

    @property
    def have_tails(self) -> bool:
        """Whether some column has values far outside the middle of the others."""
        return bool(
            (np.sqrt(self.deviation * self.reach) > TAILED * self.width)[self.width > 0].any()
        )

    def squares(self, scaling: Scaling) -> np.ndarray:
        """Return the mean squares (d,) of the columns as scaled."""
        away = (self.mean - scaling.centre) * scaling.scale
        return np.square(self.deviation * scaling.scale) + np.square(away)


def middles(parts: tuple[Part, ...], order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and the width of the middle 80 % of columns (d,) each, over some rows.

    Both are 0 where a part holds codes of categories.
    """
    medians, widths = [], []
    for part in parts:
        if not isinstance(part, Dense) or not len(order):
            medians.append(np.zeros(part.width))
            widths.append(np.zeros(part.width))
            continue
        at = (np.array([0.1, 0.5, 0.9]) * (len(order) - 1)).astype(np.int64)
        for first in range(0, part.width, QUANTILE_COLUMNS):
            some = np.ascontiguousarray(part.values[order, first : first + QUANTILE_COLUMNS].T)
            if some.dtype.kind == "f":  # a quarter of the time, by vector instructions
                some.sort(axis=1)
            else:
                some.partition(at, axis=1)
            low, middle, high = some[:, at].T.astype(np.float64)
            medians.append(middle)
            widths.append(high - low)
    return np.concatenate(medians), np.concatenate(widths)


class MomentSums:
    """Sums over rows of d features, from which their Moments follow.

    Numbers are brought near 1 by a first guess from a few rows, so that no finite one overflows
    and none loses its digits to a mean that is far away. Sums over parts of the rows, each with a
    guess of its own, merge by `+`.
    """

    def __init__(self, d: int) -> None:
        self.d = d
        self.total = 0.0
        self.finite = True
        self._sums, self._squares = np.zeros(d), np.zeros(d)
        self._low, self._high = np.full(d, np.inf), np.full(d, -np.inf)
        self._X = aligned((BLOCK, padded(d, np.dtype(np.float64))), np.dtype(np.float64))
        self._guess: Scaling | None = None
        self._affine: Affine | None = None

    def add(self, parts: tuple[Part, ...], order: np.ndarray, weight: np.ndarray) -> None:
        """Add rows; those of weight 0 do not count."""
        if self._affine is None:
            self._begin(parts, order[weight > 0][:FIRST_ROWS])
        table = part_table(parts, affine=self._affine)
        state = (self._sums, self._squares, self._low, self._high)
        self.finite &= bool(add_moments(*state, self._X, order, weight, table))
        self.total += float(weight.sum())

    def __add__(self, other: MomentSums) -> MomentSums:
        """Return the sums over the rows of both, in the units of the first that has any.

        A number u in the other's units is a + b u in the own.
        """
        first, second = (self, other) if self.total > 0 else (other, self)
        merged = MomentSums(self.d)
        merged.finite = self.finite and other.finite
        merged.total = first.total + second.total
        merged._guess, merged._affine = first._guess, first._affine
        mine = (first._sums, first._squares, first._low, first._high)
        if first._guess is None or second._guess is None or not second.total:
            merged._sums, merged._squares, merged._low, merged._high = (s.copy() for s in mine)
            return merged
        b = first._guess.scale / second._guess.scale
        a = (second._guess.centre - first._guess.centre) * first._guess.scale
        n, sums, squares = second.total, second._sums, second._squares
        merged._sums = first._sums + (a * n + b * sums)
        merged._squares = first._squares + (a * a * n + 2 * a * b * sums + b * b * squares)
        merged._low = np.minimum(first._low, a + b * second._low)
        merged._high = np.maximum(first._high, a + b * second._high)
        return merged

    def moments(self, middle: tuple[np.ndarray, np.ndarray] | None = None) -> Moments:
        """Return the moments of the rows added so far, in the units of the features.

        middle: what `middles` says of some of them.
        """
        assert self._guess is not None
        unit = 1.0 / self._guess.scale
        mean = self._sums / self.total
        reach = np.maximum(self._high - mean, mean - self._low)
        variance = np.maximum(self._squares / self.total - mean * mean, 0.0)
        deviation = np.sqrt(variance)
        constant = self._high <= self._low
        deviation[constant] = reach[constant] = 0.0
        median, width = middle or (np.zeros(self.d), np.zeros(self.d))
        return Moments(
            self._guess.centre + mean * unit, deviation * unit, reach * unit, median, width
        )

    def _begin(self, parts: tuple[Part, ...], order: np.ndarray) -> None:
        """Guess a centre and a scale from some rows: the middle and half the range."""
        low, high = np.full(self.d, np.inf), np.full(self.d, -np.inf)
        sums = np.zeros(self.d)
        add_moments(
            sums, sums.copy(), low, high, self._X, order, np.ones(len(order)), part_table(parts)
        )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            low, high = np.zeros(self.d), np.zeros(self.d)  # what is odd is found by the sums
        centre = low / 2 + high / 2
        spread = np.maximum(high / 2 - low / 2, ROUNDING * np.abs(centre))
        spread = np.where(spread > 0, spread, 1.0)
        self._guess = Scaling(centre, 1.0 / spread)
        self._affine = Affine(self._guess.centre, self._guess.scale, np.dtype(np.float64))


def wide_columns(parts: tuple[Part, ...]) -> np.ndarray:
    """Return which columns (d,) have numbers of more digits than a float32 holds."""
    return np.concatenate([np.full(part.width, part.is_wide) for part in parts])

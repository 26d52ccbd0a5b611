"""The only place that looks for rows whose labels are wrong: those that other rows contradict.

As in Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels,
Journal of Artificial Intelligence Research 70 (2021), rows are judged by models that have not seen
them, and pruned by the probability of the class that they are given. How many are wrong is told by
the rarest classes, not by the class means of that paper, which take a model's own errors for wrong
labels: a class of probability 0.001 is right once in a thousand times, and where it is given more
often, as other such classes are, a wrong label put it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import softmax
from fastsoftmax.training.cross_validate import OutOfFold, opened_folds, out_of_fold
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.trainer import Trainer

COLUMNS = (
    "row", "file", "row_group", "row_in_group", "given", "suggested", "p_given", "p_suggested",
)  # fmt: skip

EXPECTED = 0.4  # at most, of the labels of classes so rare that they tell how many are wrong
CHANCE = 5e-3  # how likely it may be that they are given so often without wrong ones
BINS = 0xFFC0 + 1  # of probabilities: 64 in each power of two

KINDS = {"row": "int64", "file": "string", "row_group": "int64", "row_in_group": "int64"}


def audit(
    data: Any,
    target: Any = None,
    *,
    folds: int = 5,
    features: Sequence[str] | None = None,
    weight: Any = None,
    classes: Sequence[Any] | None = None,
    categorical: Sequence[str] | None = None,
    report: Callable[[Progress], bool | None] | None = None,
    **options: Any,
) -> Any:
    """Return the rows whose labels are likely wrong as a pyarrow Table, the worst first.

    Columns: row (its number in the data), file, row_group and row_in_group (null for data in
    memory), given (its label), suggested, p_given and p_suggested (the probabilities of these by a
    model that was trained without the row). The worst has the smallest p_given. The arguments are
    those of `cross_validate`.
    """
    from fastsoftmax.data.formats.whole import table_of_columns

    inputs = Inputs(data, target, features, weight, classes, categorical)
    with opened_folds(inputs, folds, report, options) as (trainer, models):
        chances = _Chances()
        for _, y, p in _judged(trainer, models):
            chances.add(y, p)
        found = _contradicted(trainer, models, chances.limit())
        labels = models[0].classes_.array()
    order = np.lexsort((found["row"], found["p_given"]))
    sorted_ = {name: values[order] for name, values in found.items()}
    columns = {
        **{name: sorted_[name] for name in COLUMNS},
        "given": labels[sorted_["given"]],
        "suggested": labels[sorted_["suggested"]],
    }
    return table_of_columns(columns, KINDS)


class _Chances:
    """How often the classes that are not a row's most probable one are its label, by probability.

    cells: pairs of a row and such a class. expected: the sum of their probabilities. given: the
    pairs of which the class is the row's label. All in bins of probabilities.
    """

    def __init__(self) -> None:
        self.cells, self.given = np.zeros((2, BINS), np.int64)
        self.expected = np.zeros(BINS)

    def add(self, y: np.ndarray, p: np.ndarray) -> None:
        """Count rows: their labels and probabilities (n, K)."""
        rows = np.arange(len(y))
        is_less = np.ones(p.shape, np.bool_)
        is_less[rows, p.argmax(axis=1)] = False
        bins = _bin_of(p[is_less])
        self.cells += np.bincount(bins, minlength=BINS)
        self.expected += np.bincount(bins, p[is_less], BINS)
        self.given += np.bincount(_bin_of(p[rows, y][is_less[rows, y]]), minlength=BINS)

    def limit(self) -> int:
        """Return the first bin in which a label is rather right than wrong.

        A wrong label is each of the classes that are not the most probable one equally often. So
        of the least probable ones, whose labels the models hardly expect, the share that is given
        is how often that happens; and below the limit it explains half of the labels or more.
        """
        cells, given = np.cumsum(self.cells), np.cumsum(self.given)
        expected = np.cumsum(self.expected)
        by_chance = _most_likely(given, expected)
        tells = np.flatnonzero((expected <= EXPECTED * given) & (by_chance < CHANCE))
        if not len(tells):
            return 0
        wrong = given[tells[-1]] / cells[tells[-1]]
        surplus = 2 * wrong * cells - given  # the wrong ones, less those that are right
        best = int(surplus.argmax())
        return best + 1 if surplus[best] > 0 else 0


def _most_likely(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return bounds on the probability that labels are given so often, or more, by chance.

    Chernoff's, of a Poisson distribution: exp(given - expected) (expected / given)^given.
    """
    n, mean = np.maximum(given, 1), np.maximum(expected, np.finfo(float).tiny)
    bound = np.exp(np.minimum(n - mean + n * np.log(mean / n), 0))
    return np.where(given > expected, bound, 1.0)


def _bin_of(p: np.ndarray) -> np.ndarray:
    """Return the bin of each probability; larger ones are in later bins."""
    return np.ascontiguousarray(p, np.float64).view(np.int64) >> 46


def _judged(
    trainer: Trainer, models: Sequence[Model]
) -> Iterator[tuple[OutOfFold, np.ndarray, np.ndarray]]:
    """Yield rows, their labels and their probabilities (n, K) by models that have not seen them."""
    source, seed = trainer.rows.source, trainer.options.shuffling.seed
    for some in out_of_fold(source, models, seed):
        assert some.chunk.labels is not None  # asked for by giving the classes
        yield some, some.chunk.labels[some.rows], softmax(some.z)


def _contradicted(trainer: Trainer, models: Sequence[Model], limit: int) -> dict[str, np.ndarray]:
    """Return the rows whose labels are improbable, their bins below a limit, column by column."""
    found: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for some, y, p in _judged(trainer, models):
        best, own = p.argmax(axis=1), p[np.arange(len(y)), y]
        odd = np.flatnonzero((best != y) & (_bin_of(own) < limit))
        file, group = trainer.rows.source.whereabouts(some.chunk.piece)
        within = some.chunk.start + some.rows[odd]
        found["row"].append(some.numbers[odd])
        found["file"].append(np.full(len(odd), file, dtype=object))
        found["row_group"].append(np.full(len(odd), group, dtype=object))
        found["row_in_group"].append(
            within if group is not None else np.full(len(odd), None, dtype=object)
        )
        found["given"].append(y[odd])
        found["suggested"].append(best[odd])
        found["p_given"].append(own[odd])
        found["p_suggested"].append(p[odd, best[odd]])
    return {name: np.concatenate(parts) for name, parts in found.items()}

"""The only place that looks for rows whose labels are wrong: those that other rows contradict.

Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, Journal
of Artificial Intelligence Research 70 (2021): a row of class i is taken for one of class j where
its probability of j, by a model that has not seen it, is at least the mean that rows of class j
have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastsoftmax.model.scoring import softmax
from fastsoftmax.training.cross_validate import opened_folds, out_of_fold
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.trainer import Trainer

COLUMNS = (
    "row", "file", "row_group", "row_in_group", "given", "suggested", "p_given", "p_suggested",
)  # fmt: skip

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
    model that was trained without the row). The worst has the largest difference of the two. The
    arguments are those of `cross_validate`.
    """
    from fastsoftmax.data.formats.whole import table_of_columns

    inputs = Inputs(data, target, features, weight, classes, categorical)
    with opened_folds(inputs, folds, report, options) as (trainer, models):
        sums, counts = np.zeros((2, len(models[0].classes_)))
        source, seed = trainer.rows.source, trainer.options.shuffling.seed
        for some in out_of_fold(source, models, seed):
            assert some.chunk.labels is not None  # asked for by giving the classes
            y = some.chunk.labels[some.rows]
            own = softmax(some.z)[np.arange(len(y)), y]
            sums += np.bincount(y, own, len(sums))
            counts += np.bincount(y, minlength=len(counts))
        thresholds = np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)
        found = _contradicted(trainer, models, thresholds)
        labels = models[0].classes_.array()
    order = np.lexsort((found["row"], found["p_given"] - found["p_suggested"]))
    sorted_ = {name: values[order] for name, values in found.items()}
    columns = {
        **{name: sorted_[name] for name in COLUMNS},
        "given": labels[sorted_["given"]],
        "suggested": labels[sorted_["suggested"]],
    }
    return table_of_columns(columns, KINDS)


def _contradicted(
    trainer: Trainer, models: Sequence[Any], thresholds: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the rows that are confidently taken for another class, column by column."""
    source, seed = trainer.rows.source, trainer.options.shuffling.seed
    found: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for some in out_of_fold(source, models, seed):
        assert some.chunk.labels is not None  # asked for by giving the classes
        y, p = some.chunk.labels[some.rows], softmax(some.z)
        confident = np.where(p >= thresholds, p, -1.0)
        best = confident.argmax(axis=1)
        odd = np.flatnonzero((best != y) & (confident.max(axis=1) >= 0))
        file, group = source.whereabouts(some.chunk.piece)
        within = some.chunk.start + some.rows[odd]
        found["row"].append(some.numbers[odd])
        found["file"].append(np.full(len(odd), file, dtype=object))
        found["row_group"].append(np.full(len(odd), group, dtype=object))
        found["row_in_group"].append(
            within if group is not None else np.full(len(odd), None, dtype=object)
        )
        found["given"].append(y[odd])
        found["suggested"].append(best[odd])
        found["p_given"].append(p[odd, y[odd]])
        found["p_suggested"].append(p[odd, best[odd]])
    return {name: np.concatenate(parts) for name, parts in found.items()}

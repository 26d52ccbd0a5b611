"""The only place where a model is judged by rows whose classes are known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fastsoftmax.data.open import open_source
from fastsoftmax.data.survey import Treatment
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.model import Model
from fastsoftmax.prediction import log_sum_exp, scored


@dataclass(frozen=True)
class Report:
    """How well a model predicts, beside what the training class frequencies alone would do.

    rows: those of positive weight. log_loss, log_loss_prior: weighted means in nats;
    log_loss_prior is None where the model does not know the frequencies, and infinite where a row
    has a class that training never saw. treated: nulls filled, categories unknown, rows dropped.
    """

    rows: int
    log_loss: float
    accuracy: float
    log_loss_prior: float | None
    treated: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them: an infinite loss is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    def __str__(self) -> str:
        """Say it in one line."""
        prior = ""
        if self.log_loss_prior is not None:
            prior = f" (class frequencies alone: {self.log_loss_prior:.4f})"
        return (
            f"{self.rows:,} rows: log-loss {self.log_loss:.4f}{prior}, "
            f"accuracy {100 * self.accuracy:.2f} %"
        )


def evaluate(model: Model, data: Any, target: Any = None, weight: Any = None) -> Report:
    """Return the Report of `model` on `data`, read once.

    target: the column, or an array, of the true classes; by default the column that the model was
    trained on. weight: a column, or an array, of sample weights.
    """
    target = model.record.get("target") if target is None else target
    if target is None:
        raise OptionError("target must be given: the model was trained on an array of classes")
    source = open_source(
        data, target, weight=weight, like=model.columns, like_width=model.n_features,
        treatment=Treatment(model.nulls),
    )  # fmt: skip
    totals = _Totals(_prior_losses(model))
    try:
        for scores in scored(model, source, model.classes_):
            labels, weights = scores.chunk.labels, scores.chunk.weights
            assert labels is not None  # asked for by passing the classes
            w = np.ones(len(scores.logits)) if weights is None else weights[scores.span]
            totals.add(scores.logits, labels[scores.span], w)
    finally:
        source.close()
    return replace(totals.report(), treated=source.treated())


def _prior_losses(model: Model) -> np.ndarray | None:
    """Return the loss (K,) of predicting the training frequencies, for a row of each class."""
    prior = model.record.get("prior")
    if prior is None:
        return None
    with np.errstate(divide="ignore"):  # a class that no row had costs an infinite loss
        return -np.log(np.array(prior, dtype=np.float64))


class _Totals:
    """Weighted sums over rows, in float64."""

    def __init__(self, prior_losses: np.ndarray | None) -> None:
        self.prior_losses = prior_losses
        self.rows = 0
        self.weight = self.loss = self.hits = self.prior_loss = 0.0

    def add(self, z: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
        """Add rows with logits z (n, K), classes y (n,) and weights w (n,)."""
        counted = w > 0
        z, y, w = z[counted].astype(np.float64), y[counted], w[counted]
        self.rows += len(y)
        self.weight += float(w.sum())
        self.loss += float(w @ (log_sum_exp(z) - z[np.arange(len(y)), y]))
        self.hits += float(w @ (z.argmax(axis=1) == y))
        if self.prior_losses is not None:
            self.prior_loss += float(w @ self.prior_losses[y])

    def report(self) -> Report:
        """Return the means."""
        if self.rows == 0:
            raise DataError(
                "the data hold no row of positive weight; there is nothing to evaluate."
            )
        return Report(
            rows=self.rows,
            log_loss=self.loss / self.weight,
            accuracy=self.hits / self.weight,
            log_loss_prior=None if self.prior_losses is None else self.prior_loss / self.weight,
        )

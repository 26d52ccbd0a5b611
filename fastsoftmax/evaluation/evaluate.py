"""The only place where a model is judged by rows whose classes are known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.data.open import in_one_place, open_source
from fastsoftmax.data.preprocessing import NullPolicy
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.evaluation.metrics import BINS, Calibration, Confusion, ranks
from fastsoftmax.evaluation.report import Report
from fastsoftmax.facts import dataclass
from fastsoftmax.inference.answers import Judgement
from fastsoftmax.model.model import Model, require_model
from fastsoftmax.model.scoring import in_bulk, peek, scored
from fastsoftmax.options import Reading, Sharding, is_count

if TYPE_CHECKING:
    from fastsoftmax.data.loading.shard_rows import Shard
    from fastsoftmax.data.loading.shards import Shards
    from fastsoftmax.data.source import Chunk, Source
    from fastsoftmax.inference.scorer import JudgedSums

TOP_K = 5  # where there are more classes than that


def evaluate(
    model: Model,
    data: Any,
    target: Any = None,
    weight: Any = None,
    *,
    top_k: int | None = None,
    shards: int | str | None = None,
    workers: Any = None,
) -> Report:
    """Return the Report of `model` on `data`, read once.

    target: the column, or an array, of the true classes; by default the column that the model was
    trained on. weight: a column, or an array, of sample weights. top_k: for top_k_accuracy; by
    default 5 where there are more classes. shards, workers: judge parts of the rows at once, as in
    `train`.
    """
    require_model(model)
    sharding = Sharding(shards=shards, workers=workers)
    K = len(model.classes_)
    if top_k is not None and not (is_count(top_k, 1) and top_k <= K):
        raise OptionError(f"top_k must be in 1..{K}, the number of classes, got {top_k!r}")
    top_k = TOP_K if top_k is None and K > TOP_K else top_k
    if shards is not None:
        data = in_one_place(data)
    with (
        closing(open_judged(model, data, target, weight)) as source,
        judged_in_shards(source, model, sharding) as dealt,
    ):
        if dealt is None:
            totals = total(model, source, top_k)
        else:
            found = dealt.merged("evaluation of shard", judge_shard, model, top_k)
            source.take_treated(found.treated)
            totals = found.totals
    if totals.rows == 0:
        raise nothing_judged()
    refuse_infinite(totals.weight)
    return totals.report(model.classes_.values, source.treated())


@contextmanager
def judged_in_shards(source: Source, model: Model, sharding: Sharding) -> Iterator[Shards | None]:
    """Give the shards of rows that are judged; None where there are none."""
    if sharding.shards is None:
        yield None
        return
    # Whoever judges a model compiles nothing, and dealing shuffles.
    from fastsoftmax.data.loading.deal import count_of
    from fastsoftmax.data.loading.shards import dealt

    reading = Reading(cache="auto")
    count = count_of(source, sharding, reading)
    if count == 1:
        yield None
        return
    with closing(source.chunks(model.classes_)) as chunks:
        next(chunks, None)  # the unit of weights is that of the first ones
    with dealt(source, replace(sharding, shards=count), reading) as shards:
        yield shards


@dataclass(frozen=True)
class JudgedShards:
    """The sums over the rows of some shards, and what was done to their nulls."""

    totals: Totals
    treated: dict[tuple[int, int], dict[str, int]]

    def __add__(self, other: JudgedShards) -> JudgedShards:
        """Return what is known of both."""
        return JudgedShards(self.totals + other.totals, {**self.treated, **other.treated})


def judge_shard(source: Source, shard: Shard, model: Model, top_k: int | None) -> JudgedShards:
    """Return the sums over the rows of a shard."""
    from fastsoftmax.data.loading.shard_rows import chunks_of

    totals = total(model, source, top_k, chunks_of(source, shard, model.classes_))
    return JudgedShards(totals, source.treated_by_place())


def total(
    model: Model, source: Source, top_k: int | None, some: Iterator[Chunk] | None = None
) -> Totals:
    """Return the sums over all rows: by NumPy, or by the kernels where there are many.

    some: chunks of the source, where only these are asked for.
    """
    totals = empty_totals(model, top_k)
    is_large, chunks = peek(model.parameters, source, model.classes_)
    chunks = some or chunks
    if not is_large:
        for z, y, w in judged(model, source, chunks):
            totals.add(z, y, w)
        return totals
    prior = totals.prior_losses
    judgement = Judgement(
        model.classes_,
        BINS,
        top_k or 0,
        np.zeros(len(model.classes_)) if prior is None else prior,
        tabulate=totals.confusion.table is not None,
    )
    parts = in_bulk(model.parameters, source).judged(source, judgement, chunks)
    for sums in parts:
        totals += totals.of(sums)
    return totals


def empty_totals(model: Model, top_k: int | None) -> Totals:
    """Return the sums over no row."""
    return Totals(len(model.classes_), _prior_losses(model), top_k)


def open_judged(model: Model, data: Any, target: Any, weight: Any) -> Source:
    """Open data whose classes are known, as `evaluate` takes them."""
    target = model.record.get("target") if target is None else target
    if target is None:
        raise OptionError("target must be given: the model was trained on an array of classes")
    source = open_source(
        data, target, weight=weight, like=model.columns, like_width=model.n_features,
        label_kind=model.classes_.kind, null_policy=NullPolicy(model.nulls),
    )  # fmt: skip
    source.weight_exponent = None
    return source


def judged(
    model: Model, source: Source, chunks: Iterable[Chunk] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield float64 logits (n, K), classes (n,) and weights (n,) of the rows of positive weight.

    chunks: those of the source, where they were asked for already.
    """
    for scores in scored(model.parameters, source, model.classes_, chunks):
        labels, weights = scores.chunk.labels, scores.chunk.weights
        assert labels is not None  # asked for by passing the classes
        w = np.ones(len(scores.logits)) if weights is None else weights[scores.span]
        counted = w > 0
        yield scores.logits[counted].astype(np.float64), labels[scores.span][counted], w[counted]


def nothing_judged() -> DataError:
    """Return the error for data without a row that counts."""
    return DataError("the data hold no row of positive weight; there is nothing to evaluate.")


def refuse_infinite(weight: float) -> None:
    """Raise DataError where the sum of the weights left the floats."""
    if not math.isfinite(weight):
        raise DataError(
            "the weights are so different in size that their sum is no float: divide those that"
            " are huge."
        )


def _prior_losses(model: Model) -> np.ndarray | None:
    """Return the loss (K,) of predicting the training frequencies, for a row of each class."""
    prior = model.record.get("prior")
    if prior is None:
        return None
    with np.errstate(divide="ignore"):  # a class that no row had costs an infinite loss
        return -np.log(np.array(prior, dtype=np.float64))


class Totals:
    """Weighted sums over rows, in float64; those of parts of the rows are added."""

    def __init__(self, K: int, prior_losses: np.ndarray | None, top_k: int | None) -> None:
        self.prior_losses, self.top_k = prior_losses, top_k
        self.rows = 0
        self.weight = self.loss = self.hits = self.top_hits = self.prior_loss = 0.0
        self.confusion, self.calibration = Confusion(K), Calibration()

    def add(self, z: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
        """Add rows with logits z (n, K), classes y (n,) and weights w (n,)."""
        t, guess = np.arange(len(y)), z.argmax(axis=1)
        hit, largest = guess == y, z[t, guess]
        sums = np.exp(z - largest[:, None]).sum(axis=1)  # the largest of the terms is 1
        self.rows += len(y)
        self.weight += float(w.sum())
        self.loss += float(w @ (largest + np.log(sums) - z[t, y]))
        self.hits += float(w @ hit)
        self.confusion.add(y, guess, w)
        self.calibration.add(1 / sums, hit, w)
        if self.top_k is not None:
            self.top_hits += float(w @ (ranks(z, y) < self.top_k))
        if self.prior_losses is not None:
            self.prior_loss += float(w @ self.prior_losses[y])

    def of(self, sums: JudgedSums) -> Totals:
        """Return sums that the kernels made of rows as these; nothing is copied."""
        made = Totals(len(self.confusion.true), self.prior_losses, self.top_k)
        made.rows = int(sums.rows[0])
        facts = sums.facts.tolist()
        made.weight, made.loss, made.hits, made.top_hits, made.prior_loss = facts
        made.confusion.true, made.confusion.guessed, made.confusion.hits = sums.classes
        made.confusion.table = None if self.confusion.table is None else sums.table
        made.calibration.rows = sums.bin_rows
        made.calibration.weight, made.calibration.confidence, made.calibration.hits = sums.bins
        return made

    def __add__(self, other: Totals) -> Totals:
        """Return the sums over the rows of both, which a model of the same classes has judged."""
        both = Totals(len(self.confusion.true), self.prior_losses, self.top_k)
        both.rows = self.rows + other.rows
        both.weight = self.weight + other.weight
        both.loss = self.loss + other.loss
        both.hits = self.hits + other.hits
        both.top_hits = self.top_hits + other.top_hits
        both.prior_loss = self.prior_loss + other.prior_loss
        both.confusion = self.confusion + other.confusion
        both.calibration = self.calibration + other.calibration
        return both

    def report(self, labels: Sequence[Any], treated: dict[str, int]) -> Report:
        """Return the means."""
        return Report(
            rows=self.rows,
            log_loss=self.loss / self.weight,
            accuracy=self.hits / self.weight,
            log_loss_prior=None if self.prior_losses is None else self.prior_loss / self.weight,
            macro_f1=self.confusion.macro_f1(),
            weighted_f1=self.confusion.weighted_f1(),
            top_k=self.top_k,
            top_k_accuracy=None if self.top_k is None else self.top_hits / self.weight,
            calibration_error=self.calibration.error(),
            reliability=self.calibration.bins(),
            per_class=self.confusion.scores(labels),
            confusion=self.confusion.table,
            treated=treated,
        )

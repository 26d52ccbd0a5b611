"""The only place that opens what is trained on, and learns of it what must be known before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_reading
from fastsoftmax.data.loading.shuffle import held_out, make_plan
from fastsoftmax.data.open import ReadingRequest, in_one_place, open_source
from fastsoftmax.data.preprocessing import NgramPolicy, NullPolicy
from fastsoftmax.data.source import Column, LabelStats, Source
from fastsoftmax.data.sparse_columns import BITS, SparseRequest
from fastsoftmax.data.vocabulary import Recipe, TextColumns
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model, require_model
from fastsoftmax.options import Columns, Shuffling, Texts, TrainOptions
from fastsoftmax.training import warm_start

if TYPE_CHECKING:  # workers are loaded by runs that have some
    from fastsoftmax.data.loading.shards import Shards

# That an n-gram takes while it is counted: its name, its place, and what is copied as they grow.
NGRAM_BYTES = 100


@dataclass(frozen=True)
class Inputs:
    """What is trained on, as `train` is given it."""

    data: Any
    target: Any
    features: Sequence[str] | None = None
    weight: Any = None
    classes: Sequence[Any] | None = None
    categorical: Sequence[str] | None = None
    validation: Any = None
    init: Model | None = None
    weights_as_given: bool = False

    def __post_init__(self) -> None:
        """Take the labels of svmlight files where no others are named."""
        if self.target is not None:
            return
        from fastsoftmax.data.formats.recognise import labels_itself
        from fastsoftmax.data.formats.svmlight import LABEL

        if labels_itself(self.data):
            object.__setattr__(self, "target", LABEL)

    def check(self, options: TrainOptions) -> None:
        """Raise OptionError where something is missing, or excludes another."""
        if self.init is not None:
            require_model(self.init, "init")
        if self.target is None:
            raise OptionError(
                "target is missing: name the label column, or give an array of labels"
            )
        if self.validation is not None and options.shuffling.holdout is not None:
            raise OptionError("validation= and holdout= exclude each other: choose one")

    def open(self, options: TrainOptions) -> Source:
        """Open the rows."""
        like, policy, known = _like(self.init), options.columns, self._known_classes()
        texts = options.texts
        source = open_source(
            self.data if options.sharding.shards in (None, 1) else in_one_place(self.data),
            self.target,
            weight=self.weight,
            features=self.features,
            like=like,
            label_kind=None if known is None else known.kind,
            categorical=self.categorical,
            null_policy=NullPolicy(
                policy.nulls,
                policy.null_indicators,
                policy.max_categories,
                _text_columns(texts),
                _ngram_policy(texts, options.reading.memory_bytes),
            ),
            memory=options.reading.memory_bytes // options.reading.reader_count,
            asked=_asked(policy, texts),
        )
        try:
            if self.init is not None and options.reading.seen == "skip":
                warm_start.leave_out(source, self.init)
            source.fingerprint()  # of the files as they are before training
        except BaseException:
            source.close()
            raise
        return source

    def learn(self, source: Source, options: TrainOptions, shards: Shards | None = None) -> None:
        """Learn of the columns what must be known before training; shards: in which to."""
        # Rows that come by and by are not all there to be looked at.
        comes_later = self.weights_as_given and source.columns_are_nameless
        if _like(self.init) is not None or comes_later:
            return
        if shards is None or not source.has_to_learn:  # or it is done at once, in memory
            source.learn(_holdout_mask(options))
        else:
            from fastsoftmax.training.rounds import learn_columns

            learn_columns(shards)

    def _known_classes(self) -> Classes | None:
        """Return the classes as they were given, or those of the model to start from."""
        if self.classes is not None:
            return given_classes(self.classes)
        return None if self.init is None else self.init.classes_

    def scan(
        self, source: Source, options: TrainOptions, shards: Shards | None = None
    ) -> tuple[Classes, LabelStats | None]:
        """Return the classes, and what the labels told, where they can be read beforehand.

        shards: in which to read them.
        """
        known = self._known_classes()
        if self.classes is not None and known is not None:
            known = known.in_kind(source.label_kind)
        if source.one_pass:
            return _check_one_pass(source, known, options), None
        if shards is None:
            stats = source.scan_labels(known, _holdout_mask(options))
        else:
            from fastsoftmax.training.rounds import scan_labels

            stats = scan_labels(shards, known)
        if not self.weights_as_given:
            source.weight_exponent = stats.exponent
        return stats.classes, stats

    def open_validation(
        self, source: Source, classes: Classes, options: TrainOptions
    ) -> Source | None:
        """Open validation data like the training data: (X, y) or (X, y, weight), or named columns.

        Its labels are checked to be among the classes.
        """
        data, target, weight = self.validation, self.target, self.weight
        if data is None:
            return None
        if isinstance(data, tuple):
            if len(data) not in (2, 3):
                raise OptionError(
                    "validation= is data with the columns of the training data, or (data, target),"
                    f" or (data, target, weight); got a tuple of {len(data)}"
                )
            data, target, *rest = data
            weight = rest[0] if rest else None
        validation = open_source(
            data, target, weight=weight, like=source.columns, like_width=source.n_features,
            label_kind=classes.kind,
            memory=options.reading.memory_bytes // 4 // options.reading.reader_count,
            null_policy=NullPolicy(options.columns.nulls),
            asked=_asked(options.columns, options.texts),
        )  # fmt: skip
        try:
            validation.weight_exponent = validation.scan_labels(classes).exponent
        except BaseException:
            validation.close()
            raise
        return validation


def _text_columns(texts: Texts) -> TextColumns:
    """Return which columns are texts, and how they become numbers."""
    recipe = Recipe(
        texts.words, texts.characters, texts.bits, texts.lower, texts.normalize, texts.norm,
        texts.tf,
    )  # fmt: skip
    return TextColumns(texts.text or (), recipe)


def _ngram_policy(texts: Texts, memory: int) -> NgramPolicy:
    """Return which n-grams are features, and how many are counted at once: a power of two."""
    counted = memory // 2 // NGRAM_BYTES // max(len(texts.text or ()), 1)
    return NgramPolicy(texts.min_count, texts.max_features, 1 << max(counted, 2).bit_length() - 1)


def _asked(columns: Columns, texts: Texts) -> ReadingRequest:
    first = None if columns.zero_based is None else 0 if columns.zero_based else 1
    hashed = (texts.hashed or (), texts.bits or BITS)
    return ReadingRequest(
        columns.types, SparseRequest(columns.sparse_columns, columns.widths, first, *hashed)
    )


def validation_loader(validation: Source, classes: Classes, options: TrainOptions) -> Loader:
    """Return what brings validation rows to the kernels, in their own order."""
    memory = max(options.reading.memory_bytes // 4, 10**7)
    plan = make_plan(validation, Shuffling(shuffle="off"), memory)
    reading = replace(options.reading, memory=memory)
    rereads = options.steps.epochs != 1
    return Loader(
        validation, classes, plan, choose_reading(validation, plan, reading, rereads=rereads)
    )


def _check_one_pass(source: Source, classes: Classes | None, options: TrainOptions) -> Classes:
    """Refuse what a reader that can be read once cannot do; return the classes, which are given."""
    if classes is None:
        raise OptionError(
            "a reader can be read once, so its classes cannot be looked for: give classes=, or a"
            " callable that returns a fresh reader."
        )
    if options.steps.epochs not in (1, "auto"):
        raise DataError(
            f"a reader can be read once, but epochs is {options.steps.epochs}: give epochs=1, or a"
            " callable that returns a fresh reader."
        )
    if options.steps.schedule in ("linear", "cosine") or options.shuffling.holdout is not None:
        raise OptionError(
            "linear and cosine schedules and holdout= need to know the rows beforehand, which a"
            " one-pass reader does not tell: use schedule=constant or inverse, and validation=."
        )
    if options.steps.schedule == "inverse" and options.steps.halflife is None:
        raise OptionError("a one-pass reader does not tell its rows: give halflife= in rows.")
    return classes


def _like(init: Model | None) -> tuple[Column, ...] | None:
    """Return the columns of the model to start from, where they hold what was learnt of data."""
    if init is None or init.columns is None:
        return None
    learnt = any(
        any(held is not None for held in (c.categories, c.fill, c.sparse, c.text))
        for c in init.columns
    )
    return init.columns if learnt else None


def _holdout_mask(options: TrainOptions) -> Callable[[int, int], np.ndarray] | None:
    seed, fraction = options.shuffling.seed, options.shuffling.holdout
    if fraction is None:
        return None
    return lambda start, count: held_out(seed, fraction, start, count)

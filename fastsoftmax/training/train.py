"""The only place where a run is put together: data, options, and the Model that comes out."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_reading
from fastsoftmax.data.loading.shuffle import held_out, make_plan
from fastsoftmax.data.open import open_source
from fastsoftmax.data.preprocessing import NullPolicy
from fastsoftmax.data.source import Column, LabelStats, Source
from fastsoftmax.errors import DataError, DivergedError, OptionError, TrainingInterrupted
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model
from fastsoftmax.model.record import RunFacts, record_of
from fastsoftmax.optim.state import State
from fastsoftmax.options import Shuffling, TrainOptions
from fastsoftmax.training import warm_start
from fastsoftmax.training.checkpoint import MODIFIED, Checkpoints
from fastsoftmax.training.learner import Learner, Weights
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.trainer import Trainer
from fastsoftmax.version import versions

logger = logging.getLogger("fastsoftmax")


def _opened_validation(rows: Inputs, source: Source, options: TrainOptions) -> Source:
    """Open validation data like the training data: (X, y) or (X, y, weight), or named columns."""
    data, target, weight = rows.validation, rows.target, rows.weight
    if isinstance(data, tuple):
        data, target, *rest = data
        weight = rest[0] if rest else None
    return open_source(
        data, target, weight=weight, like=source.columns, like_width=source.n_features,
        memory=options.reading.memory_bytes // 4 // options.reading.reader_count,
        null_policy=NullPolicy(options.columns.nulls),
    )  # fmt: skip


def _feed_of(validation: Source, classes: Classes, options: TrainOptions) -> Loader:
    """Return what brings validation rows to the kernels, in their own order."""
    memory = max(options.reading.memory_bytes // 4, 10**7)
    plan = make_plan(validation, Shuffling(shuffle="off"), memory)
    reading = replace(options.reading, memory=memory)
    rereads = options.steps.epochs != 1
    return Loader(
        validation, classes, plan, choose_reading(validation, plan, reading, rereads=rereads)
    )


def _record(run: Trainer, learner: Learner, rows: Inputs) -> dict[str, Any]:
    """Return what the model of a learner remembers of its run."""
    settled, schedule, history = learner.settled, learner.schedule, learner.history
    assert settled is not None
    options = learner.options.shaping()
    if schedule is not None:  # it is None where no step was taken
        options["learning_rate"], options["schedule"] = schedule.eta0, schedule.kind
    options["l2"], options["epochs"] = settled.l2, len(history)
    data = run.source.fingerprint()
    return record_of(
        RunFacts(
            options=options,
            reasons=settled.notes,
            deviations=None if settled.moments is None else settled.moments.deviation,
            window=run.plan.window if run.plan.kind in ("window", "full") else None,
            buckets=run.plan.buckets,
            target=rows.target,
            weight=rows.weight,
            rows=history[-1]["rows"] if history else learner.seen,
            mass=run.mass,
            data=data,
            origin=warm_start.record(rows.init, data),
        )
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


def _begin_from(run: Trainer, init: Model, before: Model | None) -> None:
    """Start the run at another model's weights; before: that, where the rows are new to it."""
    if init.n_features != run.source.n_features or init.classes_ != run.classes:
        raise OptionError(
            f"init has {init.n_features} features and classes {list(init.classes[:5])}, the data"
            f" have {run.source.n_features} and {list(run.classes.values[:5])}: they must agree."
        )
    for learner in run.learners:
        learner.init = (init.coef, init.intercept)
        learner.before = warm_start.rows_taken(before)


def train(
    data: Any,
    target: Any = None,
    *,
    features: Sequence[str] | None = None,
    weight: Any = None,
    classes: Sequence[Any] | None = None,
    categorical: Sequence[str] | None = None,
    validation: Any = None,
    init: Model | None = None,
    report: Callable[[Progress], bool | None] | None = None,
    weights_as_given: bool = False,
    **options: Any,
) -> Model:
    """Train softmax regression on `data` and return the Model.

    data: a path, list of paths, glob or directory of Parquet or Arrow files; an Arrow table, reader
        or data set; anything with `__arrow_c_stream__`; a NumPy matrix (n, d); a callable that
        returns a fresh reader.
    target: the label column's name, or an array (n,) beside a NumPy matrix.
    features: names of the feature columns; default all but target and weight.
    weight: a column name or an array (n,) of row weights >= 0.
    classes: the labels to expect; default those of `init`, or those found by reading the label
        column first.
    categorical: columns whose values are categories, each of which becomes a feature.
    validation: data like `data`, or (X, y): its loss is taken after each epoch.
    init: a model to start from, with the same features and classes. Row groups of files that it
        was trained on are left out, unless seen="again".
    report: called with a Progress about five times a second and after each epoch; the run ends
        there if it returns True.
    weights_as_given: do not divide weights by their mean.
    options: see docs/options.md and TrainOptions.

    Raises OptionError, DataError (naming file, row and column), DivergedError, and on an interrupt
    TrainingInterrupted, whose `model` is what was learnt by then.
    """
    rows = Inputs(data, target, features, weight, classes, categorical, validation, init)
    with trained(rows, [TrainOptions.of(**options)], report, as_given=weights_as_given) as run:
        return model_of(run, run.field[0], rows)


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


@contextmanager
def trained(
    rows: Inputs,
    settings: list[TrainOptions],
    report: Callable[[Progress], bool | None] | None,
    *,
    as_given: bool = False,
    halves: bool = False,
) -> Iterator[Trainer]:
    """Give the run that has trained a model of each settings, which agree in what concerns rows."""
    chosen = settings[0]
    _check_given(rows, chosen)
    with ExitStack() as stack:
        if chosen.keeping.verbose:
            stack.enter_context(_talk())
        source = _opened(rows, chosen)
        stack.callback(source.close)
        classes, scan = _scanned(source, rows, chosen)
        validation = None
        if rows.validation is not None:
            validation = _opened_validation(rows, source, chosen)
            stack.callback(validation.close)
            validation.scan_labels(classes)
        goes_on = warm_start.is_new(source, rows.init, chosen)
        settings = [warm_start.going_on(each, goes_on) for each in settings]
        keeper, state = None, None
        if chosen.keeping.checkpoint is not None:
            identity = _identity(source, classes, scan, settings, rows, as_given)
            identity["validation"] = validation and _known(validation, classes)
            keeper = stack.enter_context(
                Checkpoints(chosen.keeping.checkpoint, chosen.keeping.checkpoint_every, identity)
            )
            state = keeper.load(resume=chosen.keeping.resume)
        run = stack.enter_context(
            Trainer(
                source, classes, scan, settings, report, plan=state and state[0].get("plan"),
                validated=validation is not None, weights_as_given=as_given,
                halves=halves, keeper=keeper,
            )
        )  # fmt: skip
        if rows.init is not None:
            _begin_from(run, rows.init, goes_on)
        if validation is not None:
            run.validation = _feed_of(validation, classes, run.options)
        if state is not None:
            _restore(run, state, chosen.keeping.checkpoint)
        try:
            run.train()
        except KeyboardInterrupt:
            if not run.has_begun:
                raise
            run.report = None
            run.close_epoch()
            raise TrainingInterrupted(model_of(run, run.field[0], rows)) from None
        yield run


def _check_given(rows: Inputs, options: TrainOptions) -> None:
    if rows.target is None:
        raise OptionError("target is missing: name the label column, or give an array of labels")
    if rows.validation is not None and options.shuffling.holdout is not None:
        raise OptionError("validation= and holdout= exclude each other: choose one")


def _restore(run: Trainer, state: State, folder: str | None) -> None:
    try:
        run.restore(state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"the checkpoint in {folder} is not usable ({type(error).__name__}: {error}); remove it"
            " to start anew"
        ) from error


def _opened(rows: Inputs, options: TrainOptions) -> Source:
    """Open the rows, and learn of them what must be known before training."""
    like = _like(rows.init)
    source = open_source(
        rows.data,
        rows.target,
        weight=rows.weight,
        features=rows.features,
        like=like,
        categorical=rows.categorical,
        null_policy=_treatment(options),
        memory=options.reading.memory_bytes // options.reading.reader_count,
    )
    try:
        if rows.init is not None and options.reading.seen == "skip":
            warm_start.leave_out(source, rows.init)
        source.fingerprint()  # of the files as they are before training
        if like is None:
            source.learn(_holdout_mask(options))
    except BaseException:
        source.close()
        raise
    return source


def _scanned(
    source: Source, rows: Inputs, options: TrainOptions
) -> tuple[Classes, LabelStats | None]:
    """Return the classes, and what the labels told, where they can be read beforehand."""
    known = None if rows.init is None else rows.init.classes_
    if rows.classes is not None:
        known = given_classes(rows.classes)
    if source.one_pass:
        return _check_one_pass(source, known, options), None
    scan = source.scan_labels(known, _holdout_mask(options))
    return scan.classes, scan


def model_of(run: Trainer, learner: Learner, rows: Inputs) -> Model:
    """Return what a learner has learnt."""
    settled = learner.settled
    assert settled is not None
    record = _record(run, learner, rows)

    def model(weights: Weights) -> Model:
        return Model(
            *_finite(weights),
            run.classes,
            run.source.columns,
            learner.history,
            record,
            settled.conditioning,
        )

    found, last = model(learner.weights()), learner.last_weights()
    found.unaveraged = None if last is None else model(last)
    return found


def _finite(weights: Weights) -> Weights:
    """Return weights and biases, or raise DivergedError where they are no numbers."""
    if not all(np.isfinite(each).all() for each in weights):
        raise DivergedError(
            "the weights are no longer finite. The learning rate is too high for these"
            " features: try a tenth of it, or scale the features."
        )
    return weights


def _identity(
    source: Source,
    classes: Classes,
    scan: LabelStats | None,
    settings: list[TrainOptions],
    rows: Inputs,
    as_given: bool,
) -> dict[str, Any]:
    """Return all that shapes the model, to be compared when a run is resumed."""
    if scan is None:
        raise OptionError("a reader can be read once, so nothing can be resumed: no checkpoint=")
    shaping = [options.shaping() for options in settings]
    init = rows.init
    start = 0 if init is None else zlib.crc32(init.coef.tobytes() + init.intercept.tobytes())
    return {
        "options": shaping[0] if len(shaping) == 1 else {str(i): o for i, o in enumerate(shaping)},
        "versions": versions(),
        "data": _known(source, classes),
        "features": list(source.feature_names or [source.n_features]),
        "classes": [classes.kind, list(classes.values)],
        "counts": scan.counts.tolist(),
        "weights": [float(mass) for mass in scan.mass],
        "weights_as_given": as_given,
        "init": start,
    }


def _known(source: Source, classes: Classes) -> dict[str, Any]:
    """Return what a source is known by: its files, or a checksum of its rows."""
    facts = source.fingerprint() or [{"crc32": _checksum(source, classes)}]
    times = source.modified() or [0]
    pairs = zip(facts, times, strict=True)
    return {str(i): {**each, MODIFIED: when} for i, (each, when) in enumerate(pairs)}


def _checksum(source: Source, classes: Classes) -> int:
    """Return a checksum of rows that have no file to be known by."""
    found = 0
    for chunk in source.chunks(classes):
        features = (array for part in chunk.parts for array in part.arrays)
        for array in (*features, chunk.labels, chunk.weights):
            if array is not None:
                found = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, found)
    return found


def _treatment(options: TrainOptions) -> NullPolicy:
    return NullPolicy(
        options.columns.nulls, options.columns.null_indicators, options.columns.max_categories
    )


def _like(init: Model | None) -> tuple[Column, ...] | None:
    """Return the columns of the model to start from, where they hold what was learnt of data."""
    if init is None or init.columns is None:
        return None
    learnt = any(c.categories is not None or c.fill is not None for c in init.columns)
    return init.columns if learnt else None


def _holdout_mask(options: TrainOptions) -> Callable[[int, int], np.ndarray] | None:
    fraction = options.shuffling.holdout
    if fraction is None:
        return None
    return lambda start, count: held_out(options.shuffling.seed, fraction, start, count)


class _talk:
    """Let the logger `fastsoftmax` speak on stderr for as long as a run lasts."""

    def __enter__(self) -> None:
        self._handler, self._level = logging.StreamHandler(), logger.level
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self._handler)
        logger.setLevel(self._level)

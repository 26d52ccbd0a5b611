"""The only place where a run is put together: data, options, and the Model that comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from fastsoftmax import __version__
from fastsoftmax.data.feed import Feed, choose_reading
from fastsoftmax.data.open import open_source
from fastsoftmax.data.shuffle import held_out, make_plan
from fastsoftmax.data.source import Column, Source
from fastsoftmax.data.survey import Treatment
from fastsoftmax.errors import DataError, DivergedError, OptionError
from fastsoftmax.labels import given_classes
from fastsoftmax.learner import Learner
from fastsoftmax.model import Model
from fastsoftmax.options import TrainOptions
from fastsoftmax.progress import Progress
from fastsoftmax.run import Run

logger = logging.getLogger("fastsoftmax")


def _open_validation(
    validation: Any, model_columns: Any, target: Any, weight: Any, run: Run
) -> Feed:
    """Open validation data like the training data: (X, y) or (X, y, weight), or named columns."""
    if isinstance(validation, tuple):
        data, target, *rest = validation
        weight = rest[0] if rest else None
    else:
        data = validation
    source = open_source(
        data, target, weight=weight, like=model_columns, like_width=run.source.n_features,
        memory=run.options.memory_bytes // 4 // run.options.reader_count,
        treatment=Treatment(run.options.nulls),
    )  # fmt: skip
    source.scan_labels(run.classes)
    options = replace(
        run.options,
        shuffle="off",
        shuffle_window=None,
        holdout=None,
        memory=max(run.options.memory_bytes // 4, 10**7),
    )
    plan = make_plan(source, options)
    return Feed(source, run.classes, plan, choose_reading(source, plan, options))


def _record(run: Run, learner: Learner, target: Any, weight: Any) -> dict[str, Any]:
    """Return what a model remembers of its run: nothing of the clock, the machine or paths."""
    settled, schedule, history = learner.settled, learner.schedule, learner.history
    assert settled is not None
    options = learner.options.shaping()
    if schedule is not None:  # it is None where no step was taken
        options["learning_rate"], options["schedule"] = schedule.eta0, schedule.kind
    options["l2"], options["epochs"] = settled.l2, len(history)
    versions = {name: version(name) for name in ("numpy", "numba", "pyarrow")}
    total = float(run.mass.sum())
    moments = settled.moments
    return {
        "options": options,
        "reasons": settled.notes,
        "deviations": None if moments is None else [float(s) for s in moments.deviation],
        "window": run.plan.window if run.plan.kind in ("window", "full") else None,
        "buckets": run.plan.buckets or None,
        "target": target if isinstance(target, str) else None,
        "weight": weight if isinstance(weight, str) else None,
        "rows": history[-1]["rows"],
        "prior": [float(m) / total for m in run.mass],
        "data": run.source.fingerprint(),
        "versions": {"fastsoftmax": __version__, **versions},
    }


def _check_one_pass(source: Source, classes: Any, options: TrainOptions) -> None:
    """Refuse what a reader that can be read once cannot do."""
    if classes is None:
        raise OptionError(
            "a reader can be read once, so its classes cannot be looked for: give classes=, or a"
            " callable that returns a fresh reader."
        )
    if options.epochs not in (1, "auto"):
        raise DataError(
            f"a reader can be read once, but epochs is {options.epochs}: give epochs=1, or a"
            " callable that returns a fresh reader."
        )
    if options.schedule in ("linear", "cosine") or options.holdout is not None:
        raise OptionError(
            "linear and cosine schedules and holdout= need to know the rows beforehand, which a"
            " one-pass reader does not tell: use schedule=constant or inverse, and validation=."
        )
    if options.schedule == "inverse" and options.halflife is None:
        raise OptionError("a one-pass reader does not tell its rows: give halflife= in rows.")


def _begin_from(run: Run, init: Model) -> None:
    """Start the run at another model's weights."""
    if init.n_features != run.source.n_features or init.classes_ != run.classes:
        raise OptionError(
            f"init has {init.n_features} features and classes {list(init.classes[:5])}, the data"
            f" have {run.source.n_features} and {list(run.classes.values[:5])}: they must agree."
        )
    for learner in run.learners:
        learner.init = (init.coef, init.intercept)


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
    classes: the labels to expect; default those found by reading the label column first.
    categorical: columns whose values are categories, each of which becomes a feature.
    validation: data like `data`, or (X, y): its loss is taken after each epoch.
    init: a model to start from, with the same features and classes.
    report: called with a Progress about five times a second and after each epoch; the run ends
        there if it returns True.
    weights_as_given: do not divide weights by their mean.
    options: see docs/options.md and TrainOptions.

    Raises OptionError, DataError (naming file, row and column) and DivergedError.
    """
    chosen = TrainOptions.of(**options)
    if target is None:
        raise OptionError("target is missing: name the label column, or give an array of labels")
    if validation is not None and chosen.holdout is not None:
        raise OptionError("validation= and holdout= exclude each other: choose one")
    with ExitStack() as stack:
        if chosen.verbose:
            stack.enter_context(_talk())
        source = open_source(
            data,
            target,
            weight=weight,
            features=features,
            like=_like(init),
            categorical=categorical,
            treatment=_treatment(chosen),
            memory=chosen.memory_bytes // chosen.reader_count,
        )
        stack.callback(source.close)
        if _like(init) is None:
            source.learn(_holdout_mask(chosen))
        known = None if classes is None else given_classes(classes)
        scan = None
        if source.one_pass:
            _check_one_pass(source, classes, chosen)
        else:
            scan = source.scan_labels(known, _holdout_mask(chosen))
        found = known if scan is None else scan.classes
        assert found is not None
        run = stack.enter_context(
            Run(
                source, found, scan, [chosen], report,
                validated=validation is not None, weights_as_given=weights_as_given,
            )
        )  # fmt: skip
        if init is not None:
            _begin_from(run, init)
        if validation is not None:
            run.validation = _open_validation(validation, source.columns, target, weight, run)
        run.train()
        return _model(run, run.field[0], target, weight)


def _model(run: Run, learner: Learner, target: Any, weight: Any) -> Model:
    """Return what a learner has learnt."""
    coef, intercept = learner.weights()
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise DivergedError(
            "the weights are no longer finite. The learning rate is too high for these"
            " features: try a tenth of it, or scale the features."
        )
    assert learner.settled is not None
    return Model(
        coef,
        intercept,
        run.classes,
        run.source.columns,
        learner.history,
        _record(run, learner, target, weight),
        learner.settled.conditioning,
    )


def _treatment(options: TrainOptions) -> Treatment:
    return Treatment(options.nulls, options.null_indicators, options.max_categories)


def _like(init: Model | None) -> tuple[Column, ...] | None:
    """Return the columns of the model to start from, where they hold what was learnt of data."""
    if init is None or init.columns is None:
        return None
    learnt = any(c.categories is not None or c.fill is not None for c in init.columns)
    return init.columns if learnt else None


def _holdout_mask(options: TrainOptions) -> Callable[[int, int], np.ndarray] | None:
    fraction = options.holdout
    if fraction is None:
        return None
    return lambda start, count: held_out(options.seed, fraction, start, count)


class _talk:
    """Let the logger `fastsoftmax` speak on stderr for as long as a run lasts."""

    def __enter__(self) -> None:
        self._handler, self._level = logging.StreamHandler(), logger.level
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self._handler)
        logger.setLevel(self._level)

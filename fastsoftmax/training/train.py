"""The only place where a run is put together: data, options, and the Model that comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.data.loading.deal import count_of
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.errors import DivergedError, OptionError, TrainingInterrupted
from fastsoftmax.labels import Classes
from fastsoftmax.model.model import Model
from fastsoftmax.model.record import RunFacts, record_of
from fastsoftmax.optim.state import State
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import warm_start
from fastsoftmax.training.callbacks import (
    Callback,
    Checkpointing,
    Event,
    History,
    Log,
    LossWarning,
    MixingWarning,
    Report,
    Reporting,
    Retreat,
    Validation,
)
from fastsoftmax.training.checkpoint import Checkpoints
from fastsoftmax.training.ending import warn_of_limits
from fastsoftmax.training.finish import PassWatch, ends_by_full_gradients, planned
from fastsoftmax.training.foresight import Foresight
from fastsoftmax.training.halving import Halving
from fastsoftmax.training.hooks import Hooks, checked
from fastsoftmax.training.identity import identity_of
from fastsoftmax.training.inputs import Inputs, validation_loader
from fastsoftmax.training.json_log import JsonLog
from fastsoftmax.training.learner import Learner, Pair
from fastsoftmax.training.memory_check import refuse_what_does_not_fit
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.rows import PassStopped, RunRows, TrainingRows
from fastsoftmax.training.shares import Drawn, Share, ShareWeights
from fastsoftmax.training.standing import round_progress
from fastsoftmax.training.trainer import Trainer

if TYPE_CHECKING:
    from fastsoftmax.data.loading.shards import Shards

logger = logging.getLogger("fastsoftmax")


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
    callbacks: Sequence[Any] = (),
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
    callbacks: objects with any of the methods on_start, on_span, on_epoch, on_pass and on_end, each
        called with a Progress; the run ends where one returns True. See fastsoftmax.callbacks.
    weights_as_given: do not divide weights by their mean.
    options: see docs/options.md and TrainOptions.

    Raises OptionError, DataError (naming file, row and column), DivergedError, and on an interrupt
    TrainingInterrupted, whose `model` is what was learnt by then.
    """
    inputs = Inputs(
        data, target, features, weight, classes, categorical, validation, init, weights_as_given
    )
    settings = [TrainOptions.of(**options)]
    with opened_trainer(inputs, settings, report, callbacks=callbacks) as trainer:
        train_to_end(trainer, inputs)
        (learner,) = trainer.learners
        warn_of_limits(learner, trainer.why_ended(learner))
        return model_of(trainer, learner, inputs)


@contextmanager
def opened_trainer(
    inputs: Inputs,
    settings: list[TrainOptions],
    report: Report | None,
    *,
    callbacks: Sequence[Any] = (),
    halves: bool = False,
    shares: Sequence[Share] = (),
) -> Iterator[Trainer]:
    """Give a trainer of a model of each settings, which agree in what concerns rows.

    callbacks: users' own. halves: the worse half of the models is given up now and then. shares: of
    the rows, that each model learns from, where it is not all.
    """
    chosen, hooks = settings[0], Hooks(checked(callbacks, report))
    inputs.check(chosen)
    with ExitStack() as stack:
        if chosen.keeping.verbose:
            stack.enter_context(_talk())
        source = stack.enter_context(closing(inputs.open(chosen)))
        foresight = stack.enter_context(Foresight(source, chosen))
        count = count_of(source, chosen.sharding, chosen.reading)
        settings = [each.changed(shards=count) for each in settings]
        shards = stack.enter_context(_opened_shards(source, settings[0]))
        inputs.learn(source, chosen, shards)
        classes, stats = inputs.scan(source, chosen, shards)
        validation = inputs.open_validation(source, classes, chosen)
        if validation is not None:
            stack.callback(validation.close)
        goes_on = warm_start.is_new(source, inputs.init, chosen)
        settings = [warm_start.going_on(each, goes_on) for each in settings]
        settings = [planned(each, source, stats) for each in settings]
        resolved = [each.resolved(one_pass=source.one_pass) for each in settings]
        keeper, state = None, None
        if chosen.keeping.checkpoint is not None:
            folder, every = chosen.keeping.checkpoint, chosen.keeping.checkpoint_every
            identity = identity_of(source, stats, validation, settings, inputs)
            keeper = stack.enter_context(Checkpoints(folder, every, identity))
            state = keeper.load(resume=chosen.keeping.resume)
        loader = validation_loader(validation, classes, resolved[0]) if validation else None
        rows: RunRows
        if shards is None or stats is None:
            plan = state and state[0]["plan"]
            rows = TrainingRows(source, classes, stats, resolved[0], plan=plan, validation=loader)
        else:
            from fastsoftmax.training.rounds import ShardedRows

            rows = ShardedRows(shards, classes, stats, resolved[0], loader)
        stack.callback(rows.close)
        trainer = Trainer(rows, learners_of(rows, resolved, inputs, goes_on, shares), resolved[0])
        stack.callback(trainer.close)
        _watch_means(trainer, callbacks)
        foresight.expect(trainer.learners, measures=rows.is_validated)
        trainer.callbacks = callbacks_of(trainer, report, keeper, halves=halves)
        rows.watch(_watch_of(trainer))
        # Last: they are told of what the others made of an event.
        trainer.callbacks += [*_logs(stack, trainer, goes_on=state is not None), hooks]
        if state is not None:
            _restore(trainer, state, chosen.keeping.checkpoint)
        yield trainer


def _watch_means(trainer: Trainer, callbacks: Sequence[Any]) -> None:
    """Have means kept of each epoch where they may be looked at, or a run may end, after any."""
    for learner in trainer.learners:
        may_end = learner.options.stopping.max_seconds is not None or bool(callbacks)
        learner.is_watched = trainer.rows.is_validated or may_end


def _opened_shards(source: Source, options: TrainOptions) -> AbstractContextManager[Shards | None]:
    """Give the shards of a source, or None: what works on them is then not loaded."""
    if options.sharding.count == 1:
        return nullcontext()
    from fastsoftmax.training.rounds import opened_shards

    return opened_shards(source, options)


def _watch_of(trainer: Trainer) -> Callable[[int, int], None]:
    """Return what looks at passes that are under way, and reports on them."""
    (reporting,) = [each for each in trainer.callbacks if isinstance(each, Reporting)]

    def look(done: int, of: int) -> None:
        def tell(measure: Callable[[], Progress]) -> bool:
            event = Event(learner, lambda _: measure())
            trainer.told_to_stop |= bool(reporting.on_span(event))
            return trainer.told_to_stop

        if trainer.state.place.phase == "steps":
            learner = trainer.active()[0]
            rounds = trainer.rows.rounds(learner)
            stop = tell(lambda: round_progress(trainer.progress(learner), rounds, done, of))
            if stop or trainer.is_over:
                raise PassStopped
            return
        learner = next(each for each in trainer.survivors.list() if not each.state.is_found)
        watch = PassWatch(
            learner, trainer.state, tell, lambda: trainer.is_over, lambda: trainer.seconds
        )
        watch(done, of)

    return look


def _logs(stack: ExitStack, trainer: Trainer, *, goes_on: bool) -> list[Callback]:
    """Return what writes the events of a run to a file, if that is asked for."""
    path = trainer.options.keeping.log_json
    if path is None:
        return []
    return [stack.enter_context(JsonLog(path, trainer.learners, goes_on=goes_on))]


def learners_of(
    rows: RunRows,
    settings: list[TrainOptions],
    inputs: Inputs,
    goes_on: Model | None,
    shares: Sequence[Share] = (),
) -> list[Learner]:
    """Return a learner of each settings; goes_on: a model that is known to be new to the rows.

    shares: of the rows, that each learns from; all where there are none.
    """
    init, source, classes = inputs.init, rows.source, rows.classes
    if init is not None:
        _refuse_other(init, source, classes)
    refuse_what_does_not_fit(len(classes), source.n_features, settings, source.nonzeros)
    alone = len(settings) == 1
    stats: list[LabelStats | None] = [share.scan(source, classes) for share in shares]
    stats = stats or [rows.stats] * len(settings)
    learners = [
        Learner(
            classes, source.n_features, known,
            each if alone else each.changed(threads=1),
            weights_as_given=inputs.weights_as_given,
            finishes=ends_by_full_gradients(each, one_pass=source.one_pass),
            nonzeros=source.nonzeros,
        )
        for each, known in zip(settings, stats, strict=True)
    ]  # fmt: skip
    rows.check(learners)
    drawn = Drawn(settings[0].shuffling.seed)
    for learner, share in zip(learners, shares, strict=False):
        learner.row_weights = ShareWeights(learner.row_weights, drawn, share)
    if init is None:
        return learners
    for learner in learners:
        learner.init = (init.coef, init.intercept)
        learner.before = warm_start.rows_taken(goes_on)
    return learners


def _refuse_other(init: Model, source: Source, classes: Classes) -> None:
    """Raise OptionError where a model to start from has other features or classes."""
    if init.n_features != source.n_features or init.classes_ != classes:
        raise OptionError(
            f"init has {init.n_features} features and classes {list(init.classes[:5])}, the data"
            f" have {source.n_features} and {list(classes.values[:5])}: they must agree."
        )
    for theirs, ours in zip(init.columns or (), source.columns or (), strict=False):
        if theirs.name != ours.name or not theirs.lies_as(ours):
            raise OptionError(
                f'init has "{theirs.name}", {theirs.layout}, where the data have "{ours.name}",'
                f" {ours.layout}: the features must be the same, in the same order (features= names"
                " them)."
            )


def callbacks_of(
    trainer: Trainer, report: Report | None, keeper: Checkpoints | None, *, halves: bool
) -> list[Callback]:
    """Return the callbacks of a run, in the order in which they act."""
    state, learners = trainer.state, trainer.learners
    callbacks: list[Callback] = [Validation(trainer.rows)] if trainer.rows.is_validated else []
    callbacks.append(History())
    if halves:
        callbacks.append(Halving(trainer.survivors, state, trainer.active))
    callbacks += [Log(), Reporting(report, state), MixingWarning(state)]
    if len(learners) == 1:
        callbacks.append(LossWarning(state))
        ours = isinstance(learners[0].options.steps.learning_rate, str)
        if ours and not trainer.rows.source.one_pass:
            callbacks.append(Retreat(learners[0], state))
    if keeper is not None:
        callbacks.append(Checkpointing(keeper, state, trainer.kept))
    return callbacks


def train_to_end(trainer: Trainer, inputs: Inputs) -> None:
    """Train; on an interrupt raise TrainingInterrupted with what was learnt by then."""
    try:
        trainer.train()
    except KeyboardInterrupt:
        if not trainer.has_begun:
            raise
        # Users' own code may have raised it.
        quiet = [each for each in trainer.callbacks if not isinstance(each, Reporting | Hooks)]
        trainer.callbacks = quiet
        trainer.close_epoch()
        best = trainer.survivors.list()[0]
        raise TrainingInterrupted(model_of(trainer, best, inputs, "interrupt")) from None


def _collisions(source: Source) -> dict[str, float]:
    """Return which share of what is hashed collides, of the column where it is largest."""
    known = [each for column in source.columns or () for each in (column.text, column.sparse)]
    found = [each.collisions for each in known if each is not None and each.collisions is not None]
    return {"collisions": max(found)} if found else {}


def model_of(trainer: Trainer, learner: Learner, inputs: Inputs, ended: str | None = None) -> Model:
    """Return what a learner has learnt; ended: why it takes no more steps, where it is known."""
    record = _record(trainer.rows, learner, inputs, ended or trainer.why_ended(learner))

    def model(weights: Pair) -> Model:
        return Model(
            *_finite(weights),
            trainer.rows.classes,
            trainer.rows.source.columns,
            [dict(facts) for facts in learner.state.history],
            record,
            learner.prepared.scaling,
        )

    found, last = model(learner.weights()), learner.last_weights()
    found.unaveraged = None if last is None else model(last)
    return found


def _record(rows: RunRows, learner: Learner, inputs: Inputs, ended: str) -> dict[str, Any]:
    """Return what the model of a learner remembers of its run."""
    state, prepared, plan = learner.state, learner.prepared, rows.plan
    options = learner.options.shaping()
    if state.schedule is not None:  # it is None where no step was taken
        options["learning_rate"], options["schedule"] = state.schedule.eta0, state.schedule.kind
    options["l2"], options["epochs"] = prepared.l2, len(state.history)
    data, last = rows.source.fingerprint(), state.history[-1] if state.history else None
    return record_of(
        RunFacts(
            options=options,
            reasons=prepared.notes,
            deviations=_deviations(learner),
            window=plan.window if plan.kind in ("window", "full") else None,
            buckets=plan.buckets,
            target=inputs.target,
            weight=inputs.weight,
            rows=state.history[-1]["rows"] if state.history else state.seen,
            mass=rows.mass,
            data=data,
            ended=ended,
            gain=None if last is None else last.get("gain"),
            gain_error=None if last is None else last.get("gain_error"),
            origin={**warm_start.record(inputs.init, data), **_collisions(rows.source)},
            shards=learner.options.sharding.count,
        )
    )


def _deviations(learner: Learner) -> np.ndarray | None:
    """Return the features' deviations, where they are known and not those of a vocabulary."""
    moments = learner.prepared.moments
    return None if moments is None or learner.nonzeros is not None else moments.deviation


def _finite(weights: Pair) -> Pair:
    """Return weights and biases, or raise DivergedError where they are no numbers."""
    if not all(np.isfinite(each).all() for each in weights):
        raise DivergedError(
            "the weights are no longer finite. The learning rate is too high for these"
            " features: try a tenth of it, or scale the features."
        )
    return weights


def _restore(trainer: Trainer, state: State, folder: str | None) -> None:
    try:
        trainer.restore(state)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise OptionError(
            f"the checkpoint in {folder} is not usable ({type(error).__name__}: {error}); remove it"
            " to start anew"
        ) from error


class _talk:
    """Let the logger `fastsoftmax` speak on stderr for as long as a run lasts."""

    def __enter__(self) -> None:
        self._handler, self._level = logging.StreamHandler(), logger.level
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        logger.removeHandler(self._handler)
        logger.setLevel(self._level)

"""The only place that knows which kernels a run will call, before it has read a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

import numpy as np

from fastsoftmax.data.loading.shuffle import ShufflePlan, row_order
from fastsoftmax.data.parts import Dense, Part, Sparse
from fastsoftmax.data.source import Source
from fastsoftmax.kernels.compile import IN_PYTHON, Call, announce, are_missing, foreseeing
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.hessian import WholeHessian, new_preconditioner
from fastsoftmax.optim.objective import precision
from fastsoftmax.optim.preconditioner import Batch, ByClass, Diagonal, Preconditioner
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.sparse_gradient import SparseDiagonal, SparseGradient
from fastsoftmax.optim.sparse_moments import new_moment_sums
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.step_trials import compares_by_steps
from fastsoftmax.training.tuning import penalty_rows

NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0))
ONE = (np.zeros(1, np.int64), np.zeros(1, np.int32), np.ones(1))
PARTS = (Dense(np.ones((1, 1), np.float32)),)
SPARSE = (Sparse(np.arange(2), np.zeros(1, np.int32), np.ones(1, np.float32), 1),)
ITEM_BYTES = (1, 2, 4, 8)


class Foresight:
    """Has what a run will call compiled by other processes, while it goes on."""

    def __init__(self, source: Source, options: TrainOptions) -> None:
        """Begin with what texts need, before anything is known of them."""
        self._source, self._threads = source, options.reading.thread_count
        self._crew = ExitStack()
        self._add: Callable[[list[Call]], None] | None = None
        if not IN_PYTHON and any(column.text is not None for column in source.columns or ()):
            self._expect(foreseen_of_texts(source, options), more=True)

    def __enter__(self) -> Foresight:
        return self

    def __exit__(self, *error: object) -> None:
        self._crew.close()

    def expect(self, learners: Iterable[Learner], *, measures: bool) -> None:
        """Go on with what learners will call; measures: losses, on rows that take no step."""
        calls = list[Call]()
        for learner in () if IN_PYTHON else learners:
            calls += foreseen(self._source, learner, measures=measures)
        self._expect(calls)

    def _expect(self, calls: list[Call], *, more: bool = False) -> None:
        missing = are_missing(calls)
        if self._add is not None:
            self._add(missing)
        elif missing:
            from fastsoftmax.kernels.ahead import Crew

            self._add = self._crew.enter_context(Crew(missing, self._threads, more=more)).add
        if missing:
            announce(missing)


def foreseen_of_texts(source: Source, options: TrainOptions) -> list[Call]:
    """Return the kernels that count and read texts, and that measure what comes of them."""
    from fastsoftmax.data.text import look_at_nothing  # which loads their kernels

    with foreseeing() as calls, np.errstate(all="ignore"):
        look_at_nothing(counts=source.has_to_learn, named=options.texts.bits is None)
        lay_out_nothing(())
        if options.resolved(one_pass=False).penalty.scaling != "off":
            new_moment_sums(1, sparse=True).add(SPARSE, NOTHING[0], NOTHING[2])
    return calls


def foreseen(source: Source, learner: Learner, *, measures: bool) -> list[Call]:
    """Return the kernels that a learner will call.

    The first has in it what most others are made of; then come those that take long to compile.
    """
    o, K, d = learner.options, learner.K, learner.d
    parts = PARTS if learner.nonzeros is None else SPARSE
    by_steps = compares_by_steps(learner, learner.steps or 1)
    with foreseeing() as calls, np.errstate(all="ignore"):
        for averages in _ways_to_average(learner, by_steps=by_steps):
            sgd = SGD(K, d, o.changed(threads=1), learner.nonzeros)
            sgd.weights.average_steps(counts=averages)
            if learner.nonzeros is not None and o.penalty.l2 != 0.0 and o.penalty.scaling != "off":
                # Penalties of scaled features differ, and so wait for their features.
                sgd.penalise(np.linspace(1e-3, 2e-3, d), np.full(d, o.penalty.l1))
            step_over_nothing(sgd, parts, measures=measures or by_steps)
        if learner.finishes or (o.penalty.l2 == "auto" and not by_steps):
            dtype = precision(K, d, learner.steps or 1, o.steps.dtype)
            if learner.nonzeros is None:
                pass_over_nothing(FullGradient(2, 1, dtype, 1))
                for kind in _curvatures(learner, dtype):
                    learn_nothing(SMALL[kind](dtype))
            else:
                pass_over_nothing(SparseGradient(2, 1, dtype, 1), SPARSE)
                learn_nothing(SparseDiagonal(2, 1, dtype, None), SPARSE)
        if o.penalty.scaling != "off":
            sums = new_moment_sums(1, sparse=learner.nonzeros is not None)
            sums.add(parts, NOTHING[0], NOTHING[2])
        lay_out_nothing(_item_bytes(source))
    return calls


def _ways_to_average(learner: Learner, *, by_steps: bool) -> set[bool]:
    """Return whether steps are averaged, or are not, or first the one and then the other."""
    ways = {False} if by_steps else set()
    if learner.sgd_epochs > 0:
        ways.add(True)  # where nothing is averaged, that is the same
        planned = learner.planned_epochs or 1
        if learner.averages_tail and not learner.is_watched and planned > 1:
            ways.add(False)
    return ways


def step_over_nothing(sgd: SGD, parts: tuple[Part, ...] = PARTS, *, measures: bool) -> None:
    """Look at no rows, and take a step over them."""
    with sgd:
        sgd.squared_norms(parts, NOTHING[0])
        sgd.warm_up(parts, measures=measures)


def pass_over_nothing(full: FullGradient | SparseGradient, parts: tuple[Part, ...] = PARTS) -> None:
    """Sum a full gradient over a row."""
    with full:
        full.squared_norms(parts, NOTHING[0], None)
        full.begin(np.zeros((2, 1)), np.zeros(2))
        full.add(parts, *ONE)


def learn_nothing(curvature: Preconditioner, parts: tuple[Part, ...] = PARTS) -> None:
    """Take the curvature of two classes and a feature from a row, and use it."""
    with curvature:
        curvature.learn(np.zeros((2, 2)), Batch(parts, *ONE), np.ones(2), np.ones(2))
        curvature.apply(np.zeros((2, 2)))


def lay_out_nothing(item_bytes: Iterable[int]) -> None:
    """Permute rows, and lay columns of numbers of so many bytes out as rows."""
    row_order(ShufflePlan("all", 2), 2, 0, 0, 0)
    for size in item_bytes:
        columns = np.zeros((2, 2), f"u{size}", order="F")
        copy_matrix(np.empty((2, 2), columns.dtype), columns)


# Each kind of curvature, of two classes and a feature.
SMALL: dict[type[Preconditioner], Callable[[str], Preconditioner]] = {
    WholeHessian: lambda dtype: WholeHessian(2, 1, dtype, None, 1),
    ByClass: lambda dtype: ByClass(2, 1, dtype, None, matrices=1, threads=1),
    Diagonal: lambda dtype: Diagonal(2, 1, dtype, None),
}


def _curvatures(learner: Learner, dtype: str) -> set[type[Preconditioner]]:
    """Return the kinds of curvature for fits that choose l2, and for passes over all rows."""
    o, K, d, n = learner.options, learner.K, learner.d, learner.steps or 1
    has_l1, memory = o.penalty.l1 > 0, o.curvature_memory
    found: set[type[Preconditioner]] = {Diagonal} if has_l1 and learner.finishes else set()
    sizes = {min(n, penalty_rows(K, d))} if o.penalty.l2 == "auto" else set()
    for rows in sizes | (set() if has_l1 or not learner.finishes else {n}):
        with new_preconditioner(K, d, dtype, None, rows=rows, memory=memory, threads=1) as chosen:
            found.add(type(chosen))
    return found


def _item_bytes(source: Source) -> tuple[int, ...]:
    """Return the size of the numbers that lie column by column, where that is likely."""
    size = round(source.row_bytes / max(source.n_features, 1))
    are_apart = any(column.width is None for column in source.columns or ())
    return (size,) if are_apart and size in ITEM_BYTES else ()

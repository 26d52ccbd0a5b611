"""The only place that goes to the optimum: L-BFGS over full gradients, preconditioned.

It yields one iterate after the other; whoever drives it decides when to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.optim.hessian import curvature_rows, new_preconditioner
from fastsoftmax.optim.lbfgs import LBFGS, UNSURE, Memory, Point
from fastsoftmax.optim.objective import Objective
from fastsoftmax.optim.preconditioner import Diagonal, Preconditioner, sample_rows
from fastsoftmax.optim.sparse_gradient import CURVATURE_ROWS, SparseDiagonal
from fastsoftmax.optim.state import array

FALLEN = 0.8  # of the log-loss where the curvature was taken: up to there it is much as it was
# Where tails are heavy, a few rows far away have nearly all of the curvature, and the first
# estimates of a gain are up to a hundred times too low.
UNPROVEN = 0.01  # of what is too little: so little ends a search without any proof
FAR = 1e6  # times the median squared norm: rows that may hide what the others would gain


@dataclass
class OptimizerState:
    """How far a minimisation has come: the point reached, and what the way on depends on.

    learnt_at: the weights at which the curvature was taken, learnt_loss: the log-loss there;
    learnt: the passes before that. is_over: next to nothing is left to gain, or no lower point was
    found. is_checked: that was tried without the rows that are far away.
    """

    point: Point
    memory: Memory
    log_loss: float
    accuracy: float
    learnt_loss: float
    learnt_at: np.ndarray = array("K", "columns")
    learnt: int = 0
    steps: int = 0
    is_over: bool = False
    is_checked: bool = False

    def kept(self) -> OptimizerState:
        """Return it as it is now, for it changes with the next step; arrays never do."""
        memory = self.memory
        return replace(
            self, memory=replace(memory, pairs=list(memory.pairs), values=list(memory.values))
        )

    @property
    def passes(self) -> int:
        """Passes over the rows after the first look at them, line search included."""
        return self.memory.evaluations - 1

    @property
    def gain(self) -> float:
        """Nats that the optimum is estimated to lie below the objective here."""
        return np.inf if self.memory.gain is None else self.memory.gain

    @property
    def gain_error(self) -> float:
        """Nats by which that may be wrong, as the estimate before it was."""
        return self.gain * self.memory.missed


def begin(objective: Objective, theta: np.ndarray, memory: int) -> OptimizerState:
    """Return the state at weights theta (K, d + 1), the bias last; it takes a pass.

    memory: bytes that the run may take.
    """
    smooth, gradient = objective.evaluate_and_sample(theta, _sampled(objective, memory))
    return begin_at(objective, theta, smooth, gradient)


def _sampled(objective: Objective, memory: int) -> int:
    """Return how many rows its preconditioner asks for: a run that is resumed draws as many."""
    K, d, n = objective.K, objective.d, objective.n
    if objective.nonzeros is not None:
        return min(n, CURVATURE_ROWS)
    return curvature_rows(K, d, n, memory) if _l1_of(objective) is None else sample_rows(d, n)


def begin_at(
    objective: Objective, theta: np.ndarray, smooth: float, gradient: np.ndarray
) -> OptimizerState:
    """Return the state at weights where the smooth part of the objective is known."""
    l1 = _l1_of(objective)
    value = smooth if l1 is None else smooth + float((l1 * np.abs(theta)).sum())
    memory = Memory(evaluations=1, values=[value])
    point = Point(smooth, value, theta, gradient)
    log_loss, accuracy = objective.log_loss, objective.accuracy
    return OptimizerState(point, memory, log_loss, accuracy, log_loss, theta)


@dataclass(frozen=True)
class Enough:
    """What is too little to go on for: a gain below this share of the objective, or so many nats.

    passes: over the rows, after which it ends all the same. steps: that must have been taken, the
    last of which led about as far down as had been estimated; an estimate without that proof counts
    where it is far less.
    """

    passes: int
    tolerance: float
    floor: float = 0.0
    steps: int = 0

    def least(self, value: float) -> float:
        """Return which gain is too little where the objective has this value."""
        return max(self.tolerance * abs(value), self.floor)

    def is_met(self, state: OptimizerState) -> bool:
        """Return whether too little is left to gain."""
        is_proven = state.steps >= self.steps and state.memory.missed <= UNSURE
        share = 1.0 if is_proven or not self.steps else UNPROVEN
        return state.gain <= share * self.least(state.point.value)


def iterates(
    objective: Objective, state: OptimizerState, enough: Enough, *, memory: int
) -> Generator[OptimizerState, None, None]:
    """Yield the state after each step, the same object each time, until there is enough of them.

    memory: bytes that the run may take, by which the preconditioner is chosen.
    """
    with preconditioner_of(objective, memory) as preconditioner:
        yield from iterates_by(preconditioner, objective, state, enough)


def preconditioner_of(objective: Objective, memory: int, *, keeps: bool = False) -> Preconditioner:
    """Return what suits an objective; keeps: for one penalty after another."""
    K, d, dtype, scaling = objective.K, objective.d, objective.dtype, objective.scaling
    if objective.nonzeros is not None:
        return SparseDiagonal(K, d, dtype, scaling, objective.threads)
    if _l1_of(objective) is not None:
        # Andrew and Gao's projections are onto the orthants of the weights as they are: a matrix
        # would turn the direction out of the orthant.
        return Diagonal(K, d, dtype, scaling)
    return new_preconditioner(
        K, d, dtype, scaling,
        rows=objective.n, memory=memory, threads=objective.threads, keeps=keeps,
    )  # fmt: skip


def iterates_by(
    preconditioner: Preconditioner, objective: Objective, state: OptimizerState, enough: Enough,
    *, learns: bool = True,
) -> Generator[OptimizerState, None, None]:  # fmt: skip
    """Yield what `iterates` does, by a preconditioner; learns: it takes the curvature itself."""
    l1 = _l1_of(objective)
    if objective.nonzeros is not None:
        _lay_by_feature(state)

    if learns:
        _learn(preconditioner, objective, state.learnt_at)
    precondition = _preconditioning(preconditioner, objective, l1 is None)
    search = LBFGS(objective.evaluate, precondition, l1, state.memory)
    if not state.is_over and (search.assess(state.point) is None or enough.is_met(state)):
        state.is_over = not (learns and _leaps(preconditioner, objective, state, search, enough))
        yield state
    while not state.is_over and state.passes < enough.passes and objective.finite:
        if learns and _is_due(preconditioner, objective, state):
            _learn_here(preconditioner, objective, state)
            search.forget()
        is_over = _advance(state, search, objective, enough)
        if is_over and learns:
            is_over = not _leaps(preconditioner, objective, state, search, enough)
        state.is_over = is_over
        yield state


def _preconditioning(
    preconditioner: Preconditioner, objective: Objective, is_centred: bool
) -> Callable[..., list[np.ndarray]]:
    """Return what makes directions of weights.

    A number added to the weights of all classes changes no probability: where `is_centred`,
    directions stay clear of that. With L1 it would lead away from zeros.
    """

    def precondition(*vectors: np.ndarray) -> list[np.ndarray]:
        found = preconditioner.apply(*vectors)
        for w in found:
            if not objective.fit_intercept:
                w[:, objective.d] = 0.0
            if is_centred:
                w -= w.mean(axis=0)
        return found

    return precondition


def _lay_by_feature(state: OptimizerState) -> None:
    """Have all that a search depends on lie as sparse rows have it, for sums add up in that order.

    What was kept in a checkpoint comes back class by class.
    """
    point, by_feature = state.point, np.asfortranarray
    state.point = replace(point, x=by_feature(point.x), gradient=by_feature(point.gradient))
    state.learnt_at = by_feature(state.learnt_at)
    state.memory.pairs[:] = [
        replace(pair, s=by_feature(pair.s), y=by_feature(pair.y)) for pair in state.memory.pairs
    ]


def _learn(preconditioner: Preconditioner, objective: Objective, theta: np.ndarray) -> None:
    """Take the curvature at weights theta (K, d + 1)."""
    sample = objective.sample(preconditioner.sample_rows(objective.n))
    is_all = len(sample.order) >= objective.n
    squares = np.zeros(objective.d + 1) if is_all else objective.squares
    preconditioner.learn(theta, sample, objective.l2, squares)


def _is_due(preconditioner: Preconditioner, objective: Objective, state: OptimizerState) -> bool:
    """Return whether the curvature is to be taken anew."""
    passes = preconditioner.passes(objective.n)
    if state.log_loss > FALLEN * state.learnt_loss:
        passes *= preconditioner.patience
    return state.steps in preconditioner.renewals and state.passes - state.learnt >= passes


def _learn_here(
    preconditioner: Preconditioner, objective: Objective, state: OptimizerState
) -> None:
    """Take the curvature at the point reached, and note where that was."""
    state.learnt, state.learnt_at = state.passes, state.point.x
    state.learnt_loss = state.log_loss
    _learn(preconditioner, objective, state.learnt_at)


def _leaps(
    preconditioner: Preconditioner, objective: Objective, state: OptimizerState,
    search: LBFGS, enough: Enough,
) -> bool:  # fmt: skip
    """Return whether a step by the curvature of all rows but those far away led on from the end.

    One value a million times larger than others has nearly all of its column's curvature, and what
    the others would gain looks like nothing. It is tried until it does not lead on.
    """
    if state.is_checked or state.passes >= enough.passes:
        return False
    near = objective.near(objective.sample(preconditioner.sample_rows(objective.n)), FAR)
    if near is None:
        state.is_checked = True
        return False
    preconditioner.learn(state.point.x, near, objective.l2, np.zeros(objective.d + 1))
    search.begin_anew()
    before = state.point.value
    _advance(state, search, objective, enough)
    _learn_here(preconditioner, objective, state)
    search.begin_anew()
    search.assess(state.point)
    state.is_checked = before - state.point.value <= enough.least(before)
    return not (state.is_checked and enough.is_met(state))


def minimise(
    objective: Objective, theta: np.ndarray, *, passes: int, tolerance: float, memory: int
) -> np.ndarray:
    """Return the weights (K, d + 1) at the end of all iterates from theta."""
    state = begin(objective, theta, memory)
    for _ in iterates(objective, state, Enough(passes, tolerance), memory=memory):
        continue
    return state.point.x


def _advance(state: OptimizerState, search: LBFGS, objective: Objective, enough: Enough) -> bool:
    """Take a step, and note where it led; return whether too little is left to gain."""
    following = search.step(state.point, enough.passes + 1)
    if following is not None:
        state.point, state.steps = following, state.steps + 1
        state.log_loss, state.accuracy = objective.log_loss, objective.accuracy
    if following is None:  # nothing lower was found, or there are no passes left
        return state.passes < enough.passes
    return enough.is_met(state)


def _l1_of(objective: Objective) -> np.ndarray | None:
    """Return the penalty of each of theta's numbers, none for biases; None where all are 0."""
    l1 = objective.penalty.l1
    if not l1.any():
        return None
    return np.broadcast_to(np.append(l1, 0.0), (objective.K, objective.d + 1))

"""The only place that goes to the optimum: L-BFGS over full gradients, preconditioned.

It yields one iterate after the other; whoever drives it decides when to stop.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from fastsoftmax.optim.lbfgs import LBFGS, Memory, Point
from fastsoftmax.optim.objective import Objective
from fastsoftmax.optim.preconditioner import Preconditioner, choose_matrices
from fastsoftmax.optim.state import array

# The curvature is taken anew after so many iterations: it was taken far from the optimum.
RENEWALS = (4, 12, 30, 60)


@dataclass
class OptimizerState:
    """How far a minimisation has come: the point reached, and what the way on depends on.

    learnt_at: the weights at which the curvature was taken; learnt: the passes before that.
    is_over: next to nothing is left to gain, or no lower point was found.
    """

    point: Point
    memory: Memory
    log_loss: float
    accuracy: float
    learnt_at: np.ndarray = array("K", "columns")
    learnt: int = 0
    steps: int = 0
    is_over: bool = False

    @property
    def passes(self) -> int:
        """Passes over the rows so far, line search included."""
        return self.memory.evaluations

    @property
    def gain(self) -> float:
        """Nats that the optimum is estimated to lie below the objective here."""
        return np.inf if self.memory.gain is None else self.memory.gain


def begin(objective: Objective, theta: np.ndarray) -> OptimizerState:
    """Return the state at weights theta (K, d + 1), the bias last; it takes a pass."""
    search = LBFGS(objective.evaluate, lambda v: v, _l1_of(objective))
    point = search.start(theta)
    return OptimizerState(point, search.memory, objective.log_loss, objective.accuracy, theta)


def iterates(
    objective: Objective, state: OptimizerState, *, passes: int, tolerance: float, memory: int
) -> Generator[OptimizerState, None, None]:
    """Yield the state after each step, the same object each time.

    Ends when the estimated gain is below `tolerance` times the objective, or after `passes` over
    the rows. memory: bytes that the run may take, by which the preconditioner is chosen.
    """
    K, d, l1 = objective.K, objective.d, _l1_of(objective)
    itemsize = np.dtype(objective.dtype).itemsize
    # Andrew and Gao's projections are onto the orthants of the weights as they are: a matrix would
    # turn the direction out of the orthant.
    matrices = 0 if l1 is not None else choose_matrices(K, d, objective.n, memory, itemsize)
    with Preconditioner(
        K, d, objective.dtype, matrices, objective.threads, objective.scaling
    ) as preconditioner:

        def learn() -> None:
            preconditioner.learn(
                state.learnt_at, objective.sample(), objective.l2, objective.squares
            )

        def precondition(v: np.ndarray) -> np.ndarray:
            # A number added to the weights of all classes changes no probability. Without L1,
            # where it would lead away from zeros, directions stay clear of that.
            w = preconditioner.apply(v)
            if not objective.fit_intercept:
                w[:, d] = 0.0
            return w if l1 is not None else w - w.mean(axis=0)

        learn()
        search = LBFGS(objective.evaluate, precondition, l1, state.memory)
        cost = preconditioner.passes(objective.n)
        while not state.is_over and state.passes < passes and objective.finite:
            if state.steps in RENEWALS and state.passes - state.learnt >= cost:
                state.learnt, state.learnt_at = state.passes, state.point.x
                learn()
            _advance(state, search, objective, passes, tolerance)
            yield state


def minimise(
    objective: Objective, theta: np.ndarray, *, passes: int, tolerance: float, memory: int
) -> np.ndarray:
    """Return the weights (K, d + 1) at the end of all iterates from theta."""
    state = begin(objective, theta)
    for _ in iterates(objective, state, passes=passes, tolerance=tolerance, memory=memory):
        continue
    return state.point.x


def _advance(
    state: OptimizerState, search: LBFGS, objective: Objective, passes: int, tolerance: float
) -> None:
    """Take a step, and note where it led."""
    following = search.step(state.point, passes)
    if following is not None:
        state.point, state.steps = following, state.steps + 1
    state.log_loss, state.accuracy = objective.log_loss, objective.accuracy
    enough = state.gain <= tolerance * abs(state.point.value)
    state.is_over = following is None or enough


def _l1_of(objective: Objective) -> np.ndarray | None:
    """Return the penalty of each of theta's numbers, none for biases; None where all are 0."""
    l1 = objective.penalty.l1
    if not l1.any():
        return None
    return np.broadcast_to(np.append(l1, 0.0), (objective.K, objective.d + 1))

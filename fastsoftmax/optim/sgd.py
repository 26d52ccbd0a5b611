"""The only place that chooses a kernel and calls it: weights, their scratch and their workers."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.kernels.adagrad import LEAST, descend_adagrad
from fastsoftmax.kernels.binary import descend_binary
from fastsoftmax.kernels.blocks import Rows, descend_blocks
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.gradient import add_gradient
from fastsoftmax.kernels.lookahead import descend_lookahead
from fastsoftmax.kernels.measure import measure, squared_norms
from fastsoftmax.kernels.minibatch import STEPS, descend_minibatch
from fastsoftmax.kernels.panels import descend_panels
from fastsoftmax.kernels.rowwise import descend_rowwise
from fastsoftmax.kernels.workers import Team
from fastsoftmax.kernels.workspace import (
    aligned,
    block_rows,
    drained_rows,
    gradient_rows,
    has_panels,
    is_tiny,
    looks_ahead,
    new_average,
    new_block,
    new_coefficients,
    new_gradient,
    new_panels,
    new_sums,
    new_turns,
    other_turn,
    panel_columns,
    panel_count,
    range_count,
    useful_workers,
)
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.state import array_of
from fastsoftmax.options import TrainOptions

# A kernel call is kept to about 0.1 s, so that an interrupt is seen and a block end is near. Two
# threads at K = 1,000 gain 1.82 with these, 1.6 with a quarter: each call wakes them, and ends with
# all of them waiting for the last block. AdaGrad's divisions and roots take longer.
CALL_FLOPS, ADAPTIVE_FLOPS = 8e9, 5e8
# Nor is it shorter than need be: two threads at K = 10, d = 784 gain 1.6 with 32,768 rows and 1.2
# to 1.4 with 8,192. Sums of W to which each row or batch adds lose digits if there are more.
CALL_ROWS, SUMMED_ROWS = 32768, 8192
# A span is so many calls at most, and where it is several, a power of 2 up to so many rows, which
# most windows are multiples of. After it sums of W move on to float64 ones, and the run may end or
# be kept. After each call the sums would take a fifth of the time at K = 10,000.
SPAN_CALLS, SPAN_ROWS = 8, 4096
SHRINK_ROWS = 1024  # after which weights shrink where features have penalties of their own


class Tally(NamedTuple):
    """Facts of some rows: weighted loss (nats), weighted hits, whether all numbers were finite."""

    loss: float
    hits: float
    finite: bool


class Visit(NamedTuple):
    """Rows to visit: part tables, and for each row its number, class, weight and step size."""

    tables: list[np.ndarray]
    order: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    eta: np.ndarray
    ends: bool


class Solver:
    """W and b of K classes and d features, and the steps that change them.

    Rows come as arrays `parts` side by side, the numbers `order` of the rows to visit, and for each
    of these its class, weight and step size. A row of weight 0 takes no step and is not counted.
    """

    def __init__(self, K: int, d: int, options: TrainOptions) -> None:
        self.K, self.d, self.dtype = K, d, np.dtype(options.steps.dtype)
        self.l2, self.batch_size = (
            0.0 if options.penalty.l2 == "auto" else float(options.penalty.l2),
            options.steps.batch_size,
        )
        self._penalty: np.ndarray | None = None  # where features' weights shrink apart
        self._l1: Truncation | None = None
        self.bias = 1.0 if options.penalty.fit_intercept else 0.0
        rows = block_rows(K, d)
        self._in_turn = descend_binary if K == 2 else descend_rowwise
        self._columns = [(0, d)]  # of each worker's part table
        workers = useful_workers(K, d, options.reading.thread_count)
        self._gradient, self._panels = None, None
        self._turns: tuple[Any, ...] = ()  # scratch of every other block, where there are such
        self._descend: Callable[[Visit], Any] = self._per_block
        self._squares, self._penalties = None, np.zeros((2, 1, d))
        if options.steps.adaptive:
            workers = 1
            self._squares = new_coefficients(K, d, self.dtype)
            self._descend = self._adaptively
        elif self.batch_size > 1:
            self._gradient = new_gradient(K, d, self.dtype)
            self._descend = self._per_batch
        elif is_tiny(K, d):
            workers = 1
            self._descend = self._row_by_row
        elif has_panels(K, d):
            workers = min(options.reading.thread_count, panel_count(d))
            self._columns = [panel_columns(d, i, workers) for i in range(workers)]
            self._panels = new_panels(K, d, self.dtype, workers)
            self._descend = self._per_panel
        elif looks_ahead(K, d):
            self._turns = new_turns(K, d, self.dtype, rows, workers)
            self._descend = self._ahead
        self._team = Team(workers)
        self._weights = new_coefficients(K, d, self.dtype)
        self._block = new_block(K, d, self.dtype, rows, workers)
        self._averages: list[Any] = [
            new_average(K, d, self.dtype, rows) if options.steps.average else None
            for _ in self._columns
        ]
        self._other_average = other_turn(self._averages[0]) if self._turns else None
        self._sums = [np.zeros((K, d)), np.zeros(K)]
        self._averaged = 0.0  # steps that are in these sums; others are in the kernel's own
        self._unsettled, self._unsettled_steps = 0, 0  # rows, and those that count
        self._affine: Affine | None = None
        self._tabled: Callable[[], np.ndarray | None] = lambda: None  # rows that tables are of
        self._part_tables: list[np.ndarray] = []
        self.restart()
        call_rows = span = call_length(K, d)
        if call_rows < SPAN_ROWS:
            span = SPAN_ROWS
            while span > SPAN_CALLS * call_rows:
                span //= 2
        self.call_rows, self.span_rows, self._settled_rows = call_rows, span, span
        if self.batch_size > 1 or options.steps.adaptive:
            flops = ADAPTIVE_FLOPS if options.steps.adaptive else CALL_FLOPS
            self.call_rows = min(call_rows, SUMMED_ROWS, max(rows, int(flops / (4 * K * d))))
            self._settled_rows = min(span, SUMMED_ROWS)

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(*error)

    def condition(self, conditioning: Scaling | None) -> None:
        """Bring the features of all rows to come to one scale; weights are those of the scaled."""
        self._affine = affine_of(conditioning, self.dtype)
        self._part_tables = []

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> None:
        """Set the penalties (d,) of each feature's weights.

        Where l2 is the same for all a row's own step shrinks the weights, which is exact. Else they
        shrink after each call of `step`, by what its rows add up to; so they do under l1.
        """
        if self._squares is not None:
            width = self._weights.W.shape[1]
            self._penalties = aligned((2, 1, width), self.dtype)
            self._penalties[0, 0, : self.d], self._penalties[1, 0, : self.d] = l2, l1
            self.l2 = 0.0
            return
        if l1.any():
            self._l1 = Truncation(l1, self.K)
            self.call_rows, self._settled_rows = min(self.call_rows, SHRINK_ROWS), SHRINK_ROWS
        if np.ptp(l2) <= 1e-9 * l2.max(initial=0.0):
            self.l2, self._penalty = float(l2.mean()), None
            return
        self.l2, self._penalty = 0.0, l2
        self.call_rows, self._settled_rows = min(self.call_rows, SHRINK_ROWS), SHRINK_ROWS

    def restart(self) -> None:
        """Begin anew at zeros, with nothing averaged."""
        self._weights.W[:] = 0
        self._weights.b[0, : self.K] = 0
        if self._squares is not None:
            self._squares.W[:], self._squares.b[:] = LEAST, LEAST
        if self._l1 is not None:
            self._l1.restart()
        self.restart_average()

    def restart_average(self) -> None:
        """Forget the steps averaged so far."""
        self._clear_average()
        if self._averaged > 0:
            for total in self._sums:
                total[:] = 0
        self._averaged = 0.0
        if self._gradient is not None:
            self._gradient.facts[STEPS] = 0

    def set_weights(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Begin at weights (K, d) and biases (K,)."""
        self._weights.W[:, : self.d] = coef
        self._weights.b[0, : self.K] = intercept

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,): as they are now, or their mean over all steps.

        Of the steps, those before `settle_average` was last called: after an interrupt nobody knows
        how many more there were.
        """
        if not self.averages:
            return self.last_weights()
        coef, intercept = (total / self._averaged for total in self._sums)
        return coef.astype(self.dtype), intercept.astype(self.dtype)

    @property
    def averages(self) -> bool:
        """Whether `weights` are a mean, not those of the last step."""
        return self._averaged > 0

    def last_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,) as they are now."""
        return self._weights.W[:, : self.d].copy(), self._weights.b[0, : self.K].copy()

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of all that the next step depends on, by name; averages are settled."""
        return {name: held.copy() for name, held in self._held().items()} | {
            "averaged": np.array([self._averaged]),
            "bias": np.array([self.bias]),
            "due": np.array([0.0 if self._l1 is None else self._l1.due]),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state; the conditioning and penalties must be those of then."""
        self._clear_average()
        for name, held in self._held().items():
            held[:] = array_of(state, name, held)
        self._averaged, self.bias = (
            float(array_of(state, n, (1,))[0]) for n in ("averaged", "bias")
        )
        if self._l1 is not None:
            self._l1.due = float(array_of(state, "due", (1,))[0])

    def _held(self) -> dict[str, np.ndarray]:
        K, d = self.K, self.d
        held = {"sums.W": self._sums[0], "sums.b": self._sums[1]}
        for name, pair in (
            ("weights", self._weights), ("squares", self._squares), ("gradient", self._gradient),
        ):  # fmt: skip
            if pair is not None:
                held |= {f"{name}.W": pair.W[:, :d], f"{name}.b": pair.b[0, :K]}
        if self._gradient is not None:
            held["batch"] = self._gradient.facts
        if self._l1 is not None:
            held["paid"] = self._l1.paid
        return held

    @property
    def adaptive(self) -> bool:
        """Whether each weight has a step size of its own."""
        return self._squares is not None

    def warm_up(self, parts: tuple[np.ndarray, ...], *, measures: bool) -> None:
        """Have all that a run needs compiled, on no rows; `measures`: `measure` too."""
        nothing = np.zeros(0)
        order, labels = nothing.astype(np.int64), nothing.astype(np.int32)
        self.step(parts, order, labels, nothing, nothing)
        if measures:
            self.measure(parts, order, labels, nothing)

    def step(
        self,
        parts: tuple[np.ndarray, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        eta: np.ndarray,
        *,
        ends: bool = False,
    ) -> Tally:
        """Take the steps of some rows; `ends`: the epoch ends with them, and so does its batch."""
        visit = Visit(self._tables(parts), order, labels, weight, eta, ends)
        tally = Tally(*self._descend(visit))
        if self._penalty is not None or self._l1 is not None:
            self._shrink(float((eta * weight).sum()) / self.batch_size)
        if self._averages[0] is not None:
            self._unsettled += len(order)
            self._unsettled_steps += int(np.count_nonzero(weight))
            if self._unsettled >= self._settled_rows:
                self.settle_average()
        return tally

    def measure(
        self,
        parts: tuple[np.ndarray, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Tally:
        """Return the weighted loss (nats) and hits of some rows, with the weights as they are."""
        table = part_table(parts, affine=self._affine)
        rows = Rows(table, order, labels, weight, weight)
        return Tally(*measure(self._measured_weights(), self._block, rows))

    def squared_norms(self, parts: tuple[np.ndarray, ...], order: np.ndarray) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows."""
        norms = np.zeros(len(order))
        squared_norms(norms, self._block.X[0], order, part_table(parts, affine=self._affine))
        return norms

    def _shrink(self, step: float) -> None:
        """Let penalties of the features' own act on the weights for steps of so much in all."""
        W = self._weights.W[:, : self.d]
        if self._penalty is not None:
            W *= np.maximum(0.0, 1.0 - self._penalty * step).astype(self.dtype)
        if self._l1 is not None:
            self._l1.apply(W, step)

    def _tables(self, parts: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """Return the part tables of these arrays, made anew only when they are others."""
        if self._tabled() is not parts[0] or not self._part_tables:
            self._tabled = weakref.ref(parts[0])  # a window's memory is needed for the next one
            self._part_tables = [
                part_table(parts, *columns, self._affine) for columns in self._columns
            ]
        return self._part_tables

    def _measured_weights(self) -> Any:
        if self._averaged == 0:
            return self._weights
        shown = new_coefficients(self.K, self.d, self.dtype)
        shown.W[:, : self.d], shown.b[0, : self.K] = self.weights()
        return shown

    def _per_block(self, visit: Visit) -> Any:
        rows = Rows(visit.tables[0], *visit[1:4], visit.eta * visit.weight)
        team = self._team
        return team.run(
            lambda worker: descend_blocks(
                self._weights, self._averages[0], self._block, rows,
                self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _ahead(self, visit: Visit) -> Any:
        rows = Rows(visit.tables[0], *visit[1:4], visit.eta * visit.weight)
        team = self._team
        return team.run(
            lambda worker: descend_lookahead(
                self._weights, self._averages[0], self._other_average, *self._turns, rows,
                self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _per_panel(self, visit: Visit) -> Any:
        step = visit.eta * visit.weight
        rows = [Rows(table, *visit[1:4], step) for table in visit.tables]
        team = self._team
        return team.run(
            lambda worker: descend_panels(
                self._weights, self._averages[worker], self._panels, rows[worker],
                self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _row_by_row(self, visit: Visit) -> Any:
        rows = Rows(visit.tables[0], *visit[1:4], visit.eta * visit.weight)
        average = self._averages[0]
        return self._in_turn(self._weights, average, self._block, rows, self.l2, self.bias)

    def _per_batch(self, visit: Visit) -> Any:
        rows = Rows(visit.tables[0], *visit[1:5])
        team = self._team
        return team.run(
            lambda worker: descend_minibatch(
                self._weights, self._gradient, self._averages[0], self._block, rows,
                self.batch_size, visit.ends, self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _adaptively(self, visit: Visit) -> Any:
        rows = Rows(visit.tables[0], *visit[1:5])
        l2, l1 = self._penalties
        return descend_adagrad(
            self._weights, self._squares, self._averages[0], self._block, rows, l2, l1, self.bias
        )

    def settle_average(self) -> None:
        """Move the kernel's short sums of W and b into float64 ones, before they lose digits."""
        if not self._unsettled:
            return
        self._sums[1] += self._averages[0].b[0, : self.K]
        for average, (first, stop) in zip(self._averages, self._columns, strict=True):
            self._sums[0][:, first:stop] += average.W[:, first:stop]
        if self._gradient is None:
            self._averaged += self._unsettled_steps
        else:
            self._averaged = float(self._gradient.facts[STEPS])
        self._clear_average()

    def _clear_average(self) -> None:
        """Empty the kernel's short sums."""
        self._unsettled, self._unsettled_steps = 0, 0
        for average in self._averages:
            if average is not None:
                average.W[:] = 0
                average.b[0, : self.K] = 0


def call_length(K: int, d: int) -> int:
    """Return how many rows a kernel call has at most: many where a second thread may be woken."""
    rows = block_rows(K, d)
    several = panel_count(d) if has_panels(K, d) else useful_workers(K, d, 2)
    most = CALL_ROWS if several > 1 else SUMMED_ROWS
    return max(rows, min(most, int(CALL_FLOPS / (4 * K * d)) // rows * rows))


class Truncation:
    """L1 by cumulative penalties: each weight pays what is due so far, and stops at 0.

    Tsuruoka, Tsujii and Ananiadou, Stochastic Gradient Descent Training for L1-regularized
    Log-linear Models with Cumulative Penalty, ACL 2009.
    """

    def __init__(self, l1: np.ndarray, K: int) -> None:
        """Begin with nothing due; l1 (d,): the penalty of each feature's weights."""
        self._l1 = l1
        self.due = 0.0  # the sum of step sizes so far, that l1 is multiplied by
        self.paid = np.zeros((K, len(l1)))  # what each weight received, with its sign

    def restart(self) -> None:
        """Begin anew, with nothing due."""
        self.due = 0.0
        self.paid[:] = 0

    def apply(self, W: np.ndarray, step: float) -> None:
        """Bring weights (K, d) nearer 0 by what steps of so much in all make due."""
        self.due += step
        due = self.due * self._l1
        before = W.astype(np.float64)
        above = np.maximum(before - (due + self.paid), 0.0)
        below = np.minimum(before + (due - self.paid), 0.0)
        W[:] = np.where(before > 0, above, np.where(before < 0, below, 0.0))
        self.paid += W - before


def affine_of(conditioning: Scaling | None, dtype: np.dtype) -> Affine | None:
    """Return what part tables point to for features that are conditioned."""
    if conditioning is None:
        return None
    return Affine(conditioning.centre, conditioning.scale, dtype)


class FullGradient:
    """The loss and its gradient over many rows, at weights that stay as they are meanwhile.

    Sums are float64 and do not depend on the number of threads.
    """

    def __init__(
        self, K: int, d: int, dtype: str, threads: int, conditioning: Scaling | None = None
    ) -> None:
        """Make room for K classes, d features and the sums of each thread."""
        self.K, self.d, self.rows = K, d, gradient_rows(K, d)
        self._affine = affine_of(conditioning, np.dtype(dtype))
        kind = np.dtype(dtype)
        ranges, self._drained = range_count(K, d), drained_rows(K, d)
        self._team = Team(min(threads, ranges))
        self._weights = new_coefficients(K, d, kind)
        self._sums = new_sums(K, d, kind, self._team.size)
        self._blocks = [new_block(K, d, kind, self.rows) for _ in range(self._team.size)]

    def __enter__(self) -> FullGradient:
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(*error)

    def begin(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Start anew, at weights (K, d) and biases (K,)."""
        self._weights.W[:, : self.d] = coef
        self._weights.b[0, : self.K] = intercept
        self._sums.W[:] = 0
        self._sums.b[:] = 0

    def add(
        self,
        parts: tuple[np.ndarray, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Tally:
        """Add some rows; return their weighted loss and hits."""
        table = part_table(parts, affine=self._affine)
        rows, sums = Rows(table, order, labels, weight, weight), self._sums
        ranges, tiles = len(sums.b), -(-len(order) // self.rows)
        bounds = [min(tiles * r // ranges * self.rows, len(order)) for r in range(ranges + 1)]
        bounds[-1] = len(order)
        tallies = [Tally(0.0, 0.0, True)] * ranges

        def share(worker: int) -> None:
            for r in range(worker, ranges, self._team.size):
                facts = add_gradient(
                    self._weights, self._blocks[worker], sums.W[r], sums.b[r],
                    sums.part_W[worker], sums.part_b[worker], rows, bounds[r], bounds[r + 1],
                    self._drained,
                )  # fmt: skip
                tallies[r] = Tally(*facts)

        self._team.run(share)
        loss, hits = (sum(getattr(tally, name) for tally in tallies) for name in ("loss", "hits"))
        return Tally(loss, hits, all(tally.finite for tally in tallies))

    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums over all rows of w (p - onehot(y)) x' (K, d) and w (p - onehot(y)) (K,).

        Both float64; ranges are added in their order.
        """
        return -self._sums.W.sum(axis=0), -self._sums.b.sum(axis=0)

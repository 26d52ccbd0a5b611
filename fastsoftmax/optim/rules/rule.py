"""The only place that says what an update rule is: one kernel, its memory and its workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels import stretches
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.measure import measure, squared_norms
from fastsoftmax.kernels.operands import Rows, new_block
from fastsoftmax.kernels.sizes import block_rows, has_panels, panel_count, useful_workers
from fastsoftmax.kernels.workers import Team
from fastsoftmax.optim.penalties import Penalties
from fastsoftmax.optim.tables import PartTables
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import RowMajor, Weights
from fastsoftmax.options import Steps

# A kernel call is kept to about 0.1 s, so that an interrupt is seen and a block end is near. Two
# threads at K = 1,000 gain 1.82 with these, 1.6 with a quarter: each call wakes them, and ends with
# all of them waiting for the last block.
CALL_FLOPS = 8e9
# Nor is it shorter than need be: two threads at K = 10, d = 784 gain 1.6 with 32,768 rows and 1.2
# to 1.4 with 8,192. Sums of W to which each row or batch adds lose digits if there are more.
CALL_ROWS, SUMMED_ROWS = 32768, 8192
# A span is so many calls at most, and where it is several, a power of 2 up to so many rows, which
# most windows are multiples of. After it sums of W move on to float64 ones, and the run may end or
# be kept. After each call the sums would take a fifth of the time at K = 10,000.
SPAN_CALLS, SPAN_ROWS = 8, 4096


class Visit(NamedTuple):
    """Rows to visit: part tables, and for each row its number, class, weight and step size.

    step: the step size times the weight, which kernels make shorter where it is bounded. ends: the
    epoch ends with them. l2: by which each step shrinks the weights. own: penalties that a kernel
    lets act by itself. bias: the share of a step that biases take. bound: how steps are bounded, a
    number of `bounds`.
    """

    tables: list[Any]
    order: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    eta: np.ndarray
    step: np.ndarray
    ends: bool
    l2: float
    own: np.ndarray
    bias: float
    bound: int

    def rows(self, worker: int = 0) -> Rows:
        """Return the rows as kernels take them that step by eta times the weight."""
        # Workers that share no recurrence bound their steps each by itself.
        step = self.step if worker == 0 else self.step.copy()
        table = self.tables[worker]
        return Rows(table, self.order, self.labels, self.weight, step, self.bound)


@dataclass(frozen=True)
class Task:
    """What a rule is chosen by: K classes, d features, and how steps are to be taken.

    nonzeros: how many numbers of a row are not 0, in the mean, where rows are sparse.
    """

    K: int
    d: int
    steps: Steps
    nonzeros: float | None = None


class Lengths(NamedTuple):
    """How many rows a kernel call, a span, and the time between two settlings of averages have."""

    call: int
    span: int
    settled: int


class Rule(ABC):
    """An update kernel, with the memory and the workers that it takes for K classes, d features.

    block: scratch in which rows are gathered, to step and to measure. columns: the first feature
    of each worker's part table, and the first after them.
    """

    name: ClassVar[str]  # as `warmup` tells it
    example: ClassVar[tuple[int, int, dict[str, Any]]]  # K, d and options of a problem it fits
    nonzeros: ClassVar[float | None] = None  # of a row of that problem, where rows are sparse
    numbers: ClassVar[int] = 1  # held for each weight, those of averages aside
    shrinks: ClassVar[bool] = False  # by penalties of features' own, without help

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate; `fits` must hold."""
        K, d = task.K, task.d
        self.K, self.d, self.dtype = K, d, np.dtype(task.steps.dtype)
        self.block_rows = block_rows(K, d)
        workers = self.workers(K, d, threads)
        self.columns = self.cut(workers)
        self.team = Team(workers)
        self.block = new_block(K, d, self.dtype, self.block_rows, workers)

    @staticmethod
    @abstractmethod
    def fits(task: Task) -> bool:
        """Return whether this rule takes such steps, if none before it in the list does."""

    @abstractmethod
    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take the steps of some rows."""

    def step_alone(self, kernel: Any, scratch: Any, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row by a kernel of one thread."""
        sums, rows = weights.sums[0] if weights.sums else None, visit.rows()
        facts = kernel(weights.arrays, sums, scratch, rows, visit.l2, visit.own, visit.bias)
        return Tally(*facts)

    def new_weights(self, *, average: bool) -> Weights:
        """Return zeros, laid out as the kernel takes them, whose mean over steps is kept or not."""
        columns = self.columns if average else []
        return RowMajor(self.K, self.d, self.dtype, columns=columns, block_rows=self.block_rows)

    def new_tables(self) -> PartTables:
        """Return what describes rows to its kernel: a table for each worker."""
        return PartTables(
            lambda parts, affine: [part_table(parts, *columns, affine) for columns in self.columns]
        )

    def measure(
        self, weights: Weights, parts: tuple[Part, ...], affine: Affine | None,
        rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> Tally:  # fmt: skip
        """Return the facts of rows, by number, class and weight, with the weights as they are."""
        order, labels, weight = rows
        table = part_table(parts, affine=affine)
        visited = Rows(table, order, labels, weight, weight)
        return Tally(*measure(weights.measured(), self.block, visited))

    def squared_norms(
        self, parts: tuple[Part, ...], order: np.ndarray, affine: Affine | None
    ) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows."""
        norms, table = np.zeros(len(order)), part_table(parts, affine=affine)
        squared_norms(norms, self.block.X[0], order, table)
        return norms

    def close(self) -> None:
        """End its threads."""
        self.team.close()

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return how many threads run the kernel."""
        return useful_workers(K, d, threads)

    def cut(self, workers: int) -> list[tuple[int, int]]:
        """Return the features of each part table; one table has all where classes are shared."""
        return [(0, self.d)]

    def lengths(self, penalties: Penalties) -> Lengths:
        """Return how many rows to hand over at once."""
        call = span = call_length(self.K, self.d)
        if call < SPAN_ROWS:
            span = SPAN_ROWS
            while span > SPAN_CALLS * call:
                span //= 2
        call, settled = self.shortened(call, span)
        if penalties.act_between or len(penalties.own):
            # Whole stretches between two shrinkings. Sums move on where most windows end too, so
            # that it changes no bit where these are cut.
            settled = stretches.STRETCH_ROWS
            while len(penalties.own) and 2 * settled <= min(call, stretches.SUMMED_ROWS):
                settled *= 2
            call = min(call, max(call // settled, 1) * settled)
        return Lengths(call, span, settled)

    def shortened(self, call: int, span: int) -> tuple[int, int]:
        """Return the rows of this kernel's calls, and those after which averages are settled."""
        return call, span

    def counted(self, visit: Visit) -> int:
        """Return how many steps W was added to its sums at, in the last call."""
        return int(np.count_nonzero(visit.weight))

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> Penalties:
        """Take over the penalties (d,) that the kernel applies; return those that are left."""
        return Penalties(self.K, l2, l1, by_kernel=self.shrinks)

    def unit(self, norm: float) -> float:
        """Return what step sizes are tried in units of 1 over, for a mean squared norm of rows."""
        return norm

    def restart(self) -> None:
        """Begin anew where the weights are zeros again."""

    def shared(self) -> dict[str, np.ndarray]:
        """Return the arrays, beside the weights, whose mean shards that step apart go on from."""
        return {}

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays, beside the weights, that the next step depends on, by name."""
        return {}


def call_length(K: int, d: int) -> int:
    """Return how many rows a kernel call has at most: many where a second thread may be woken."""
    rows = block_rows(K, d)
    several = panel_count(d) if has_panels(K, d) else useful_workers(K, d, 2)
    most = CALL_ROWS if several > 1 else SUMMED_ROWS
    return max(rows, min(most, int(CALL_FLOPS / (4 * K * d)) // rows * rows))


def summed_length(call: int, rows: int, K: int, d: int, flops: float) -> int:
    """Return the rows of a call, each of which may add W to its sum, of so much work at most."""
    return min(call, SUMMED_ROWS, max(rows, int(flops / (4 * K * d))))

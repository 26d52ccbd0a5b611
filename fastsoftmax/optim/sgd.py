"""The only place that steps through rows: a rule, the weights it changes and their penalties."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.rules.choice import choose_rule
from fastsoftmax.optim.rules.rule import Task, Visit
from fastsoftmax.optim.state import fill
from fastsoftmax.optim.tables import affine_of
from fastsoftmax.optim.tally import Tally
from fastsoftmax.options import MAX_STEPS, TrainOptions


class SGD:
    """Weights of K classes and d features, and the steps that change them.

    Rows come as arrays `parts` side by side, the numbers `order` of the rows to visit, and for each
    of these its class, weight and step size. A row of weight 0 takes no step and is not counted.
    """

    def __init__(
        self, K: int, d: int, options: TrainOptions, nonzeros: float | None = None
    ) -> None:
        """Begin at zeros; nonzeros: of a row in the mean, where rows are sparse."""
        steps, penalty = options.steps, options.penalty
        self.K, self.d, self.dtype = K, d, np.dtype(steps.dtype)
        # How many numbers of a row are met in a step.
        self.row_numbers = float(d) if nonzeros is None else max(nonzeros, 1.0)
        task = Task(K, d, steps, nonzeros)
        self.rule = choose_rule(task)(task, options.reading.thread_count)
        self.weights = self.rule.new_weights(average=bool(steps.average))
        self._batch_size = steps.batch_size
        # A number of `bounds`, held as an array because a checkpoint keeps it.
        self._bound = np.zeros(1)
        self.bound = "off" if steps.max_step == "auto" else steps.max_step
        self._bias = np.ones(1) if penalty.fit_intercept else np.zeros(1)
        self._tables = self.rule.new_tables()
        self.scaling: Scaling | None = None
        l2 = 0.0 if penalty.l2 == "auto" else float(penalty.l2)
        self.penalise(np.full(d, l2), np.zeros(d))

    def close(self) -> None:
        """End its threads."""
        self.rule.close()

    def __enter__(self) -> SGD:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def bound(self) -> str:
        """How far a row may step: off (as far as its step size says), cap or implicit.

        It may be set between any two calls. Other rules than those that step row by row ignore it.
        """
        return MAX_STEPS[int(self._bound[0])]

    @bound.setter
    def bound(self, kind: str) -> None:
        self._bound[0] = MAX_STEPS.index(kind)

    @property
    def call_rows(self) -> int:
        """How many rows to hand over at once, at most."""
        return self.lengths.call

    def scale(self, scaling: Scaling | None) -> None:
        """Bring the features of all rows to come to one scale; weights are those of the scaled."""
        self.scaling = scaling
        self._tables.scale(affine_of(scaling, self.dtype))

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> None:
        """Set the penalties (d,) of each feature's weights."""
        self._penalties = self.rule.penalise(l2, l1)
        self.lengths = self.rule.lengths(self._penalties)

    def scale_bias(self, factor: float) -> None:
        """Let biases take another share of each step."""
        self._bias *= factor

    @property
    def bias_share(self) -> float:
        """The share of each step that biases take."""
        return float(self._bias[0])

    @bias_share.setter
    def bias_share(self, share: float) -> None:
        self._bias[0] = share

    def shared(self) -> dict[str, np.ndarray]:
        """Return what shards that step apart bring together: W (K, d), b (K,), and what the rule
        has beside them; copies.
        """
        W, b = self.weights.get()
        return {"W": W, "b": b} | {name: view.copy() for name, view in self.rule.shared().items()}

    def share(self, found: dict[str, np.ndarray]) -> None:
        """Go on from what was brought together."""
        self.weights.set(found["W"], found["b"])
        for name, view in self.rule.shared().items():
            view[...] = found[name]

    def restart(self) -> None:
        """Begin anew at zeros, with nothing averaged."""
        self.weights.zero()
        self.rule.restart()
        self._penalties.restart()

    def step(
        self,
        parts: tuple[Part, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        eta: np.ndarray,
        *,
        ends: bool = False,
    ) -> Tally:
        """Take the steps of some rows; `ends`: the epoch ends with them, and so does its batch."""
        arrays = (order, labels, weight, eta, eta * weight)
        sums_up = len(self._penalties.own) > 0 and bool(self.weights.sums)
        if not (self._penalties.act_between or sums_up):
            return self._step_over(parts, arrays, ends)
        tally, rows = Tally(0.0, 0.0, True), self.lengths.settled
        for start in range(0, len(order), rows):
            stop = start + rows
            some = tuple(values[start:stop] for values in arrays)
            tally = tally.with_more(self._step_over(parts, some, ends and stop >= len(order)))
        return tally

    def _step_over(
        self, parts: tuple[Part, ...], arrays: tuple[np.ndarray, ...], ends: bool
    ) -> Tally:
        """Take the steps of rows after which weights may shrink."""
        order, labels, weight, eta, step = arrays
        penalties, bias = self._penalties, float(self._bias[0])
        tables, bound = self._tables.of(parts), int(self._bound[0])
        l2, own = penalties.l2, penalties.own
        visit = Visit(tables, order, labels, weight, eta, step, ends, l2, own, bias, bound)
        tally = self.rule.step(self.weights, visit)
        if penalties.act_between:
            taken = float(step.sum()) / self._batch_size
            self.weights.change(lambda W: penalties.shrink(W, taken))
        counted = self.rule.counted(visit)  # asked for in any case: some rules forget it then
        if self.weights.sums:
            self.weights.count(len(order), counted)
            if self.weights.unsettled_rows >= self.lengths.settled:
                self.weights.settle()
        return tally

    def measure(
        self,
        parts: tuple[Part, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Tally:
        """Return the weighted loss (nats) and hits of some rows, with the weights as they are."""
        rows = (order, labels, weight)
        return self.rule.measure(self.weights, parts, self._tables.affine, rows)

    def measured(
        self,
        parts: tuple[Part, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Iterator[tuple[slice, Tally]]:
        """Yield which of many rows some are, a call's worth, and what `measure` returns of them."""
        for start in range(0, len(order), self.call_rows):
            some = slice(start, start + self.call_rows)
            yield some, self.measure(parts, order[some], labels[some], weight[some])

    def squared_norms(self, parts: tuple[Part, ...], order: np.ndarray) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows."""
        return self.rule.squared_norms(parts, order, self._tables.affine)

    def warm_up(self, parts: tuple[Part, ...], *, measures: bool) -> None:
        """Have all that a run needs compiled, on no rows; `measures`: `measure` too."""
        nothing = np.zeros(0)
        order, labels = nothing.astype(np.int64), nothing.astype(np.int32)
        self.step(parts, order, labels, nothing, nothing)
        if measures:
            self.measure(parts, order, labels, nothing)

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name; averages are settled."""
        own = self.weights.views() | self.rule.views() | self._penalties.views()
        return own | {"bias": self._bias, "bound": self._bound}

    def restore(self, stored: dict[str, np.ndarray]) -> None:
        """Go on from copies of `views`; scaling and penalties must be those of then."""
        self.weights.drop_unsettled()
        self.weights.expect(stored)
        fill(self.views(), stored)

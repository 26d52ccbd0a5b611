"""The only place that hands rows of a trained model to the scoring kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.data.source import Chunk
from fastsoftmax.inference.answers import Judgement
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.operands import Coefficients, Rows, new_block, new_coefficients
from fastsoftmax.kernels.scoring import JudgedSums as JudgedSums
from fastsoftmax.kernels.scoring import (
    judge_rows,
    logits_of_rows,
    probabilities_of_rows,
)
from fastsoftmax.kernels.sizes import gradient_rows
from fastsoftmax.kernels.transpose import copy_matrix

# Rows that are laid out and scored at a time stay in the second-level cache.
LAID_OUT_BYTES = 2**19


class TrainedWeights:
    """What scorers of all threads share: weights, biases and what features are scaled with."""

    def __init__(
        self, weights: np.ndarray, bias: np.ndarray, affine: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        """Copy weights (K, d) and biases (K,) as kernels read them; affine: centre and scale."""
        (self.K, self.d), self.dtype = weights.shape, weights.dtype
        self.coefficients: Coefficients = new_coefficients(self.K, self.d, self.dtype)
        self.coefficients.W[:, : self.d] = weights
        self.coefficients.b[0, : self.K] = bias
        self.affine = None if affine is None else Affine(*affine, self.dtype)


class Scorer:
    """The scratch of one thread. Each method returns whether all was finite; if not it stops."""

    def __init__(self, weights: TrainedWeights) -> None:
        self._weights, K, d = weights, weights.K, weights.d
        self._block = new_block(K, d, weights.dtype, gradient_rows(K, d))
        self._step = max(LAID_OUT_BYTES // (max(d, 1) * weights.dtype.itemsize), 64)
        self._order, self._ones = np.arange(self._step), np.ones(self._step)
        self._rooms: dict[int, Part] = {}  # by the number of the part that is laid out there

    def logits(self, out: np.ndarray, parts: tuple[Part, ...]) -> bool:
        """Set out (n, K) to the logits of all rows."""
        known = self._weights.coefficients
        return all(
            logits_of_rows(out[span], known, self._block, rows)
            for span, rows in self._cut(parts, None, None)
        )

    def probabilities(self, out: np.ndarray, best: np.ndarray, parts: tuple[Part, ...]) -> bool:
        """Set out (n, K) to the probabilities, best (n,) to the first of the largest of each."""
        known = self._weights.coefficients
        return all(
            probabilities_of_rows(out[span], best[span], known, self._block, rows)
            for span, rows in self._cut(parts, None, None)
        )

    def judge(self, sums: JudgedSums, judgement: Judgement, chunk: Chunk) -> bool:
        """Add rows whose classes are known to the sums."""
        assert chunk.labels is not None  # asked for by passing the classes
        known = self._weights.coefficients
        return all(
            judge_rows(sums, known, self._block, rows, judgement.top, judgement.prior)
            for _, rows in self._cut(chunk.parts, chunk.labels, chunk.weights)
        )

    def _cut(
        self, parts: tuple[Part, ...], labels: np.ndarray | None, weights: np.ndarray | None
    ) -> Any:
        """Yield the rows some at a time, each row together in memory, and which they are."""
        for start in range(0, parts[0].rows, self._step):
            span = slice(start, min(start + self._step, parts[0].rows))
            count = span.stop - start
            laid = [self._laid_out(i, part[span]) for i, part in enumerate(parts)]
            table = part_table(laid, affine=self._weights.affine)
            # Copies: Arrow's are read-only, and kernels would be compiled again for those.
            y = self._order[:0] if labels is None else labels[span].astype(np.int32)
            w = self._ones[:count] if weights is None else weights[span].astype(np.float64)
            yield span, Rows(table, self._order[:count], y, w, self._ones[:0])

    def _laid_out(self, number: int, part: Part) -> Part:
        """Return the part where each row lies together in memory.

        In the same room again and again: to give memory back for each part of a chunk, and to fault
        it in anew, doubled the system's share of the time.
        """
        if part.is_row_major:
            return part
        room = self._rooms.get(number)
        if room is None or (room.described, room.width) != (part.described, part.width):
            room = self._rooms[number] = part.room(self._step)
        room.fill(copy_matrix, 0, part)
        return room[: part.rows]

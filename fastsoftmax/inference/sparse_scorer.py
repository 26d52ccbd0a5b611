"""The only place that hands sparse rows of a trained model to the kernels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.by_feature import new_feature_weights
from fastsoftmax.kernels.gather import Affine
from fastsoftmax.kernels.lists import ListTables, new_lists
from fastsoftmax.kernels.sparse_sums import logits_of_lists
from fastsoftmax.kernels.workspace import aligned

BLOCK_NUMBERS = 2**18  # of logits that are held at once, of 64 rows at least


class SparseScorer:
    """Weights, biases and what features are scaled with, as kernels of sparse rows take them."""

    def __init__(
        self, weights: np.ndarray, bias: np.ndarray, affine: tuple[np.ndarray, np.ndarray] | None
    ) -> None:
        """Copy weights (K, d) and biases (K,); affine: centre and scale, or None."""
        (self.K, d), self.dtype = weights.shape, weights.dtype
        self._weights = new_feature_weights(self.K, d, self.dtype)
        self._weights.V[:, : self.K] = weights.T
        self._weights.b[0, : self.K] = bias
        self._affine = None if affine is None else Affine(*affine, self.dtype)

    def blocks(self, parts: tuple[Part, ...]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield first row and logits (n, K) of each block; logits of a block where anything is not
        finite are not finite.
        """
        tables, width = ListTables(parts, self._affine), self._weights.V.shape[1]
        lists, step = new_lists(tables, self.dtype), max(64, BLOCK_NUMBERS // width)
        nothing = np.zeros(0)
        for start in range(0, parts[0].rows, step):
            order = np.arange(start, min(start + step, parts[0].rows))
            R = aligned((len(order), width), self.dtype)
            rows = tables.rows(order, np.zeros(0, np.int32), nothing, nothing)
            if not logits_of_lists(R, self._weights, lists, rows):
                R[:] = np.nan
            yield start, R[:, : self.K]

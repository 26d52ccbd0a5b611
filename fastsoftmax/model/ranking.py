"""The only place that ranks features by how much they weigh in a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.errors import OptionError
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.options import is_count


def top_features(model: Parameters, n: int) -> dict[Any, list[tuple[str | int, float]]]:
    """Return for each class the n features of largest weight, as Model.top_features says."""
    if not is_count(n, 1):
        raise OptionError(f"the number of features to list must be a whole number >= 1, got {n!r}")
    names = model.feature_names or range(model.n_features)
    units = 1.0 if model.deviations is None else model.deviations
    ranked = {}
    for label, weights in zip(model.classes.values, model.coef * units, strict=True):
        ranked[label] = [(names[j], float(weights[j])) for j in _largest(np.abs(weights), n)]
    return ranked


def _largest(sizes: np.ndarray, n: int) -> np.ndarray:
    """Return where the n largest of sizes (d,) above 0 stand; of equal ones the first."""
    least = np.partition(sizes, -n)[-n] if n < len(sizes) else 0.0
    candidates = np.flatnonzero((sizes >= least) & (sizes > 0))
    return candidates[np.argsort(-sizes[candidates], kind="stable")][:n]

"""The only place that finds the rows whose classes a model holds least likely, and says why."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastsoftmax.data.source import Source
from fastsoftmax.facts import dataclass
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.model.scoring import Scores

MOST_REASONS = 3


@dataclass(frozen=True)
class Surprise:
    """A row whose class has a low probability.

    place: where it stands. given, predicted: its class, and the most probable one. reasons: the
    features that speak most for `predicted` against `given`: name, value, and the logits they add.
    """

    place: str
    given: Any
    predicted: Any
    p_given: float
    p_predicted: float
    reasons: tuple[tuple[str, float, float], ...]


class Surprises:
    """The `most` rows of largest loss among those it is shown."""

    def __init__(self, model: Parameters, source: Source, most: int) -> None:
        """Show nothing yet."""
        self.model, self.source, self.most = model, source, most
        self._held: list[tuple[float, int, Surprise]] = []
        self._seen = 0

    def add(self, scores: Scores, losses: np.ndarray, labels: np.ndarray) -> None:
        """Show rows of these losses (n,) in nats and labels (n,); -1 for rows that do not count."""
        first, self._seen = self._seen, self._seen + len(losses)
        for t in np.argsort(-losses, kind="stable")[: self.most].tolist():
            full = len(self._held) == self.most
            if losses[t] <= (self._held[0][0] if full else 0.0):
                break
            # Of equal losses the first row stays.
            entry = (float(losses[t]), -first - t, self._of(scores, t, int(labels[t])))
            (heapq.heapreplace if full else heapq.heappush)(self._held, entry)

    def found(self) -> list[Surprise]:
        """Return the rows, that of the largest loss first."""
        return [entry[2] for entry in sorted(self._held, key=lambda entry: entry[:2], reverse=True)]

    def _of(self, scores: Scores, t: int, label: int) -> Surprise:
        chunk, row, values = scores.chunk, scores.start + t, self.model.classes.values
        z = scores.logits[t].astype(np.float64)
        p = np.exp(z - z.max())
        p /= p.sum()
        guess = int(z.argmax())
        x = np.concatenate([np.asarray(part.row(row), np.float64) for part in chunk.parts])
        return Surprise(
            self.source.place(chunk.piece, chunk.start + row),
            values[label],
            values[guess],
            float(p[label]),
            float(p[guess]),
            tuple(self._reasons(x, label, guess)),
        )

    def _reasons(self, x: np.ndarray, label: int, guess: int) -> Iterator[tuple[str, float, float]]:
        """Yield the features that add most to the difference of the two logits."""
        model = self.model
        scaled = x if model.scaling is None else model.scaling.apply(x)
        added = (model.weights[guess].astype(np.float64) - model.weights[label]) * scaled
        names = model.feature_names or range(model.n_features)
        for j in np.argsort(-added, kind="stable")[:MOST_REASONS].tolist():
            if added[j] > 0:
                name = names[j]
                yield str(name if isinstance(name, str) else f"[{j}]"), float(x[j]), float(added[j])

"""Models and sources made by hand, for tests of what uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from fastsoftmax.data.parts import Dense
from fastsoftmax.data.source import Chunk, Column, LabelStats, Source
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model


def make_model(K=3, d=4, *, dtype="float32", classes=None, named=True, seed=0) -> Model:
    """Return a model with random weights; named: columns `a` and `v[0]`, ..."""
    random = np.random.default_rng(seed)
    columns = (Column("a"), Column("v", d - 1)) if named else None
    return Model(
        random.normal(size=(K, d)).astype(dtype),
        random.normal(size=K).astype(dtype),
        given_classes(range(K)) if classes is None else classes,
        columns,
        [{"epoch": 1, "rows": 9, "log_loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1}],
        {
            "options": {"epochs": 1, "l2": 0.0},
            "target": "label",
            "weight": None,
            "data": [],
            "rows": 9,
            "prior": [1 / K] * K,
            "versions": {"fastsoftmax": "0"},
        },
    )


class Rows(Source):
    """A source of chunks of the sizes asked for."""

    one_pass = False
    resident = True

    def __init__(self, parts, labels=None, weights=None, kept=None, sizes=None) -> None:
        self.parts = tuple(map(Dense, parts))
        self.labels, self.weights, self.kept = labels, weights, kept
        self.pieces = tuple(sizes or (len(parts[0]),))
        self.columns = None
        self.n_features = sum(part.shape[1] for part in parts)
        self.row_bytes = 8 * self.n_features
        self.closed = False

    def scan_labels(self, classes=None, held_out=None) -> LabelStats:
        raise NotImplementedError

    def count_labels(self, pieces, classes=None, held_out=None):
        raise NotImplementedError

    def chunks(
        self, classes: Classes | None, order: Sequence[int] | None = None
    ) -> Iterator[Chunk]:
        start = 0
        for piece, rows in enumerate(self.pieces):
            span = slice(start, start + rows)
            yield Chunk(
                tuple(part[span] for part in self.parts),
                None if classes is None else self.labels[span],
                None if classes is None or self.weights is None else self.weights[span],
                piece,
                0,
                None if self.kept is None else self.kept[span].combine_chunks().to_batches()[0],
            )
            start += rows

    def place(self, piece: int, row: int) -> str:
        return f"data.parquet, row group {piece}, row {row}"

    def fingerprint(self) -> list[dict[str, object]]:
        return []

    def close(self) -> None:
        self.closed = True


def make_table(rows: int) -> pa.Table:
    """Return a table of columns to keep."""
    return pa.table({"id": pa.array(range(rows)), "name": pa.array([f"r{t}" for t in range(rows)])})

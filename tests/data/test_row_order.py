"""Rows that come in another order at a later pass are noticed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import fastsoftmax
from fastsoftmax.data import row_order
from fastsoftmax.data.row_order import Trail
from fastsoftmax.errors import DataError

pytestmark = [
    pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged"),
    pytest.mark.filterwarnings("ignore:after epoch"),
]
rng = np.random.default_rng(2)
ROWS = 3000
X = rng.normal(size=(ROWS, 4))
Y = (X[:, 0] + rng.normal(size=ROWS) > 0).astype(int)
TABLE = pa.table({**{f"x{j}": X[:, j] for j in range(4)}, "y": Y, "w": np.ones(ROWS)})
READ_AGAIN = {"cache": "off", "shuffle": "window", "epochs": 3, "learning_rate": 0.01, "l2": 0.0}
READ_AGAIN |= {"schedule": "constant", "memory": "10MB", "solver": "sgd"}


class Shuffling:
    """A function of readers, each in another order and cut otherwise."""

    def __init__(self, table=TABLE, *, shuffles=True):
        self.table, self.shuffles, self.calls = table, shuffles, 0

    def __call__(self):
        self.calls += 1
        order = np.random.default_rng(self.calls).permutation(ROWS)
        table = self.table.take(pa.array(order)) if self.shuffles else self.table
        return table.to_reader(max_chunksize=100 + 37 * self.calls)


def test_held_out_rows_of_a_stream_in_another_order_are_an_error():
    with pytest.raises(DataError, match="another order than at the first pass"):
        fastsoftmax.train(Shuffling(), "y", holdout=0.3, **READ_AGAIN)


def test_labels_and_weights_beside_a_stream_in_another_order_are_an_error():
    bare = TABLE.drop_columns(["y", "w"])
    with pytest.raises(DataError, match="another order than at the first pass"):
        fastsoftmax.train(Shuffling(bare), Y, **READ_AGAIN)
    beside = TABLE.drop_columns("w")
    with pytest.raises(DataError, match="another order than at the first pass"):
        fastsoftmax.train(Shuffling(beside), "y", weight=np.ones(ROWS), **READ_AGAIN)


def test_a_stream_in_another_order_is_warned_of_once_where_no_row_is_known_by_its_number():
    with pytest.warns(UserWarning, match="cannot be repeated") as caught:
        fastsoftmax.train(Shuffling(), "y", **READ_AGAIN)
    assert sum("another order" in str(each.message) for each in caught) == 1


@pytest.mark.parametrize("holdout", [None, 0.3])
@pytest.mark.parametrize("classes", [None, [1, 0, 2]])
def test_a_stream_that_is_cut_otherwise_at_each_pass_is_none_in_another_order(holdout, classes):
    options = {**READ_AGAIN, "holdout": holdout, "classes": classes}
    reader = Shuffling(shuffles=False)
    fastsoftmax.train(reader, "y", **options)
    assert reader.calls > 3
    fastsoftmax.train(Shuffling(TABLE.drop_columns("y"), shuffles=False), Y, **options)


def test_checksums_do_not_depend_on_cuts_or_on_how_classes_are_numbered(monkeypatch):
    monkeypatch.setattr(row_order, "SEGMENT", 7)
    labels = rng.integers(5, size=100)
    whole, cut, renamed, other = (Trail() for _ in range(4))
    whole.add_labels(labels)
    for part in np.array_split(labels, [3, 3, 10, 24, 60]):
        cut.add_labels(part)
    renamed.add_labels(np.array([40, 2, 0, 7, 1])[labels])
    other.add_labels(labels[::-1])
    assert whole.marks == cut.marks == renamed.marks
    assert whole.last == cut.last == renamed.last
    assert len(whole.marks) == 14
    assert other.last != whole.last

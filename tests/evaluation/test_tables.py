"""Tables are aligned, and leave out what would not fit on a screen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fastsoftmax.evaluation.evaluate import evaluate
from fastsoftmax.evaluation.tables import report_tables, table
from fastsoftmax.labels import given_classes
from fastsoftmax.model.model import Model


def tables_of(labels, weight=1.0) -> list[str]:
    """Return the tables for a row of each class, all predicted rightly."""
    K = len(labels)
    model = Model(np.eye(K), np.zeros(K), given_classes(labels))
    return report_tables(evaluate(model, np.eye(K), labels, np.full(K, weight)).as_dict())


def test_names_stand_left_and_numbers_right():
    want = ["class   rows", "a          1", "long\\n   200"]
    assert table(["class", "rows"], [["a", "1"], ["long\n", "200"]]) == want


@pytest.mark.parametrize(
    ("K", "titles"),
    [
        (10, ["confidence", "class", "true"]),
        (11, ["confidence", "class"]),
        (20, ["confidence", "class"]),
        (21, ["confidence"]),
    ],
)
def test_tables_of_classes_are_shown_where_they_fit(K, titles):
    lines = tables_of(list(range(K)))
    assert [line.split()[0] for before, line in pairwise(lines) if not before] == titles


@pytest.mark.parametrize(
    ("weight", "shown"),
    [(1.0, "1"), (1234.0, "1,234"), (0.00125, "0.001250"), (1.5, "1.500"), (12345.6, "12,346")],
)
def test_sums_of_weights_are_whole_or_show_four_digits(weight, shown):
    lines = tables_of([0, 1], weight)
    assert [line.split()[-1] for line in lines if line.startswith(("0 ", "1 "))] == [
        shown, shown, "0" if "." not in shown else f"{0:.{len(shown) - 2}f}", shown,
    ]  # fmt: skip


def test_long_names_of_classes_are_cut():
    lines = tables_of(["a" * 21, "b" * 20])
    assert any(line.startswith("a" * 17 + "...  ") for line in lines)
    assert any(line.startswith("b" * 20 + "  ") for line in lines)

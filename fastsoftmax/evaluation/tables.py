"""The only place that sets tables in lines of text: of a Report, of a Sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fastsoftmax.evaluation.formatting import printable

MOST_SCORED = 20  # a line for each of more classes would be scrolled past
MOST_CONFUSED = 10  # a column for each of more classes would not fit beside the others
MOST_LETTERS = 20  # of a class's name


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a line for the heads and one a row; the first column stands left, numbers right."""
    lines = [list(map(printable, heads)), *(list(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(_placed, line, widths, range(len(line)))).rstrip() for line in lines]


def report_tables(report: dict[str, Any]) -> list[str]:
    """Return the tables of a Report, each after a blank line; of classes where there are few."""
    tables = [_reliability(report["reliability"])]
    K = len(report["per_class"])
    if K <= MOST_SCORED:
        tables.append(_scores(report["per_class"]))
    if K <= MOST_CONFUSED and report["confusion"] is not None:
        tables.append(_confusion(report))
    return [line for lines in tables for line in ("", *lines)]


def sweep_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of a Sweep, the best setting first."""
    heads = list(rows[0])
    return table(
        ["rank", *(head.replace("_", "-") for head in heads)],
        ([str(i), *(_cell(row[head]) for head in heads)] for i, row in enumerate(rows, start=1)),
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if type(value) is int else "-" if value is None else str(value)


def _reliability(bins: list[dict[str, Any]]) -> list[str]:
    weight = sum(line["weight"] for line in bins)
    heads = ("confidence", "rows", "weight", "mean", "accuracy")
    return table(
        heads,
        (
            (
                f"{line['lowest']:.2f} to {line['highest']:.2f}",
                f"{line['rows']:,}",
                f"{100 * line['weight'] / weight:.2f} %",
                f"{100 * line['confidence']:.2f} %",
                f"{100 * line['accuracy']:.2f} %",
            )
            for line in bins
        ),
    )


def _scores(scores: list[dict[str, Any]]) -> list[str]:
    heads = ("class", "precision", "recall", "F1", "support")
    support = _amounts([line["support"] for line in scores])
    shares = ([f"{line[name]:.4f}" for name in ("precision", "recall", "f1")] for line in scores)
    names = (_name(line["label"]) for line in scores)
    return table(heads, ([n, *s, w] for n, s, w in zip(names, shares, support, strict=True)))


def _confusion(report: dict[str, Any]) -> list[str]:
    names = [_name(line["label"]) for line in report["per_class"]]
    K, cells = len(names), _amounts([w for row in report["confusion"] for w in row])
    rows = ([name, *cells[i * K : (i + 1) * K]] for i, name in enumerate(names))
    return table(["true \\ predicted", *names], rows)


def _amounts(weights: list[float]) -> list[str]:
    """Return sums of weights: whole numbers where all are, else four digits of the largest."""
    is_whole = all(weight == int(weight) for weight in weights)
    digits = 0 if is_whole else max(0, 3 - math.floor(math.log10(max(weights))))
    return [f"{weight:,.{digits}f}" for weight in weights]


def _name(label: object) -> str:
    text = printable(label)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."


def _placed(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column else text.ljust(width)

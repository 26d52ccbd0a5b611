"""The only place that draws charts as SVG text, which a page holds; its style gives the colours."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from fastsoftmax.evaluation.formatting import printable
from fastsoftmax.facts import dataclass

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 14, 50


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one name, drawn in the style of the class `style`."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str


@dataclass(frozen=True)
class _Plane:
    """Where numbers stand in a picture."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )


def escaped(text: object) -> str:
    """Return text as a page may hold it: no markup, no control characters."""
    return html.escape(printable(text))


def line_chart(series: Sequence[Series], title: str, x_name: str, y_name: str) -> str:
    """Return lines through the points of each series, whose axes begin at 0 or below them."""
    points = [point for each in series for point in each.points]
    plane = _Plane(_range([x for x, _ in points]), _range([y for _, y in points]))
    drawn = [*_axes(plane, x_name, y_name), *(_line(plane, each) for each in series)]
    return _picture(drawn, series, title)


def reliability_chart(bins: Sequence[dict[str, Any]], title: str) -> str:
    """Return the accuracy of each bin of confidence, its share of the rows, and the diagonal."""
    plane, total = _Plane((0, 1), (0, 1)), sum(line["weight"] for line in bins)
    drawn = _axes(plane, "confidence: the largest probability", "accuracy")
    for line in bins:
        (left, top), (right, bottom) = (
            plane.at(line["lowest"], line["weight"] / total),
            plane.at(line["highest"], 0),
        )
        drawn.append(
            f'<rect class="share" x="{left:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}"'
            f' height="{bottom - top:.1f}"><title>{100 * line["weight"] / total:.1f} % of the rows'
            "</title></rect>"
        )
    (x, y), (u, v) = plane.at(0, 0), plane.at(1, 1)
    drawn.append(f'<line class="ideal" x1="{x}" y1="{y}" x2="{u}" y2="{v}"/>')
    accuracy = Series("accuracy", [(b["confidence"], b["accuracy"]) for b in bins], "first")
    names = [
        accuracy,
        Series("as sure as right", (), "ideal"),
        Series("share of rows", (), "share"),
    ]
    return _picture([*drawn, _line(plane, accuracy)], names, title)


def _line(plane: _Plane, series: Series) -> str:
    places = [plane.at(x, y) for x, y in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(
        f'<circle class="{series.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
        f"<title>{escaped(series.name)}: {_short(value)} at {_short(at)}</title></circle>"
        for (x, y), (at, value) in zip(places, series.points, strict=True)
    )
    return f'<polyline class="{series.style}" points="{path}"/>{marks}'


def _axes(plane: _Plane, x_name: str, y_name: str) -> list[str]:
    (left, bottom), (right, top) = (
        plane.at(plane.x[0], plane.y[0]),
        plane.at(plane.x[1], plane.y[1]),
    )
    drawn = []
    for value in _ticks(*plane.y):
        _, y = plane.at(plane.x[0], value)
        drawn.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="end">{_short(value)}</text>')
    for value in _ticks(*plane.x):
        x, _ = plane.at(value, plane.y[0])
        drawn.append(f'<text x="{x:.1f}" y="{bottom + 18}" class="middle">{_short(value)}</text>')
    middle = (top + bottom) / 2
    drawn.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    drawn.append(
        f'<text x="{(left + right) / 2}" y="{HEIGHT - 8}" class="middle">{escaped(x_name)}</text>'
    )
    drawn.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" class="middle">'
        f"{escaped(y_name)}</text>"
    )
    return drawn


def _picture(drawn: Iterable[str], series: Sequence[Series], title: str) -> str:
    keys = "".join(
        f'<span class="key"><i class="{each.style}"></i>{escaped(each.name)}</span>'
        for each in series
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(title)}">'
        f"{''.join(drawn)}</svg><figcaption>{keys}</figcaption></figure>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return where an axis begins and ends: in no point, and at 0 or below."""
    low, high = min(0.0, *values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers within an axis, about five."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"

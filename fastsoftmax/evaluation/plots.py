"""The only place that draws facts by matplotlib: each plot takes an Axes, or makes one.

Colours are those of Okabe and Ito, which the colour-blind tell apart, and maps that they can read:
viridis and cividis where values grow, PuOr where they have two signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.errors import DataError, MissingExtraError, OptionError
from fastsoftmax.evaluation.formatting import printable

try:
    from matplotlib import pyplot
except ImportError as missing:
    raise MissingExtraError('plots need matplotlib: pip install "fastsoftmax[plot]"') from missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastsoftmax.evaluation.report import Report
    from fastsoftmax.model.model import Model

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
GROWING, SIGNED = "cividis", "PuOr"
MOST_LETTERS = 24
MOST_NAMED = 40  # rows of an axis that can still be read


def history(
    model: Model, ax: Axes | None = None, *, seconds: Sequence[float] | None = None
) -> Axes:
    """Draw the progressive and the validation loss of a model's epochs over the rows seen.

    seconds: when each epoch was over, which no model file holds but a log does; the losses are then
    drawn over these.
    """
    lines = model.history
    if not lines:
        raise DataError("the model has no history: it was trained for no epoch.")
    if seconds is not None and len(seconds) != len(lines):
        raise OptionError(
            f"seconds must be one for each of {len(lines)} epochs, got {len(seconds)}"
        )
    ax = _axes(ax)
    over = np.cumsum([line["rows"] for line in lines]) if seconds is None else np.array(seconds)
    _line(ax, over, [line["log_loss"] for line in lines], BLUE, "o", "progressive")
    checked = [line.get("validation_log_loss") for line in lines]
    if any(loss is not None for loss in checked):
        losses = [math.nan if loss is None else loss for loss in checked]
        _line(ax, over, losses, ORANGE, "s", "validation")
    ax.set_xlabel("rows seen" if seconds is None else "seconds")
    ax.set_ylabel("log-loss (nats)")
    ax.set_title("How the loss fell")
    ax.legend(frameon=False)
    return ax


def reliability(report: Report, ax: Axes | None = None) -> Axes:
    """Draw how often rows of each confidence are right, and how many rows have it."""
    ax = _reliability_axes(_axes(ax))
    bins = report.reliability
    total = sum(line.weight for line in bins)
    ax.bar(
        [line.lowest for line in bins],
        [line.weight / total for line in bins],
        [line.highest - line.lowest for line in bins],
        align="edge", color="#d9d9d9", edgecolor="white", label="share of the rows",
    )  # fmt: skip
    _bins(ax, report, BLUE, "o", "accuracy")
    ax.set_title("Whether it is as right as it is sure")
    ax.legend(loc="best", edgecolor="none")
    return ax


def calibration(before: Report, after: Report, ax: Axes | None = None) -> Axes:
    """Draw the reliability of two reports, of before and after `calibrate`."""
    ax = _reliability_axes(_axes(ax))
    pairs = ((before, "before", GREY, "s"), (after, "after", BLUE, "o"))
    for report, name, colour, marker in pairs:
        _bins(ax, report, colour, marker, name)
    ax.set_title("What calibration did")
    ax.legend(loc="best", edgecolor="none")
    return ax


def confusion(report: Report, most: int = 20, ax: Axes | None = None) -> Axes:
    """Draw which classes are taken for which: a table, or for more than `most` classes the
    `most` largest confusions.
    """
    if most < 1:
        raise OptionError(f"most must be >= 1, got {most}")
    if report.confusion is None:
        raise DataError("the report has no confusion table: there are more than 1,000 classes.")
    names = [_short(score.label) for score in report.per_class]
    if len(names) <= most:
        return _confusion_table(np.asarray(report.confusion), names, ax)
    wrong = np.array(report.confusion, dtype=np.float64)
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(names)) for at in largest if wrong.flat[at] > 0]
    ax = _axes(ax, height=_height(len(pairs)))
    ax.barh(range(len(pairs)), [wrong[i, j] for i, j in pairs], color=ORANGE)
    ax.set_yticks(
        range(len(pairs)), [f"{names[i]} \N{RIGHTWARDS ARROW} {names[j]}" for i, j in pairs]
    )
    ax.invert_yaxis()
    ax.set_xlabel("rows")
    ax.set_title("The largest confusions (true \N{RIGHTWARDS ARROW} predicted)")
    return ax


def weights(model: Model, shape: tuple[int, int] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the weights: classes by features, or for each class an image of `shape`.

    They are per standard deviation of the feature where these are known, as in `top_features`.
    """
    names = [_short(label) for label in model.classes]
    coef = model.coef * (1.0 if model.deviations is None else model.deviations)
    if shape is not None and shape[0] * shape[1] != model.n_features:
        raise OptionError(
            f"shape must have as many pixels as the model has features, {model.n_features},"
            f" got {shape[0]} x {shape[1]}"
        )
    if shape is not None:
        return _weight_images(coef, names, shape, _per(model), ax)
    ax = _axes(ax, height=_height(len(names)))
    drawn = ax.imshow(coef, aspect="auto", interpolation="nearest", **_signed(coef))
    _name_ticks(ax, "y", names)
    features = model.feature_names
    if features is not None and len(features) <= MOST_NAMED:
        ax.set_xticks(range(len(features)), [_short(name) for name in features], rotation=90)
    ax.set_xlabel("feature")
    ax.set_ylabel("class")
    ax.set_title("Weights")
    _colour_bar(ax, drawn, _per(model))
    return ax


def top_features(model: Model, n: int = 5, ax: Axes | None = None) -> Axes:
    """Draw the n features of largest weight of each class; of more than 10 classes the first 10."""
    ranked = list(model.top_features(n).items())[:10]
    count = sum(len(features) for _, features in ranked)
    ax = _axes(ax, height=_height(count + len(ranked)))
    at, ticks, labels = 0.0, [], []
    for label, features in ranked:
        ax.text(0, at, f" class {_short(label)}", weight="bold", va="center", transform=_across(ax))
        for name, weight in features:
            at += 1
            ax.barh(at, weight, color=BLUE if weight > 0 else ORANGE)
            ticks.append(at)
            labels.append(_short(f"feature {name}" if isinstance(name, int) else name))
        at += 1.2
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(ticks, labels)
    ax.set_ylim(at - 0.5, -0.8)
    ax.set_xlabel(_per(model))
    ax.set_title("Which features decide")
    return ax


def sweep(sweep: Any, ax: Axes | None = None) -> Axes:
    """Draw the losses of a Sweep: over one option, as a surface over two, else ranked.

    The loss is that of the validation rows where there are such, else the progressive one.
    """
    table = sweep.table
    key = "log_loss" if table[0].get("validation_log_loss") is None else "validation_log_loss"
    losses = np.array([math.nan if row[key] is None else row[key] for row in table], dtype=float)
    known = {"log_loss", "validation_log_loss", "rows", "status"}
    options = [n for n in table[0] if n not in known and len({str(row[n]) for row in table}) > 1]
    axis = f"{key.replace('_', ' ').replace('log loss', 'log-loss')} (nats)"
    is_number = all(_is_number(row[name]) for row in table for name in options)
    if len(options) == 1 and is_number:
        ax = _swept_line(_axes(ax), options[0], [row[options[0]] for row in table], losses)
        ax.set_ylabel(axis)
    elif len(options) == 2:
        ax = _surface(_axes(ax), table, options, losses, axis)
    else:
        ax = _axes(ax, height=_height(len(table)))
        names = [", ".join(f"{n}={_value(row[n])}" for n in options) or "as given" for row in table]
        ax.plot(losses, range(len(table)), "o", color=BLUE)
        ax.set_yticks(range(len(table)), names)
        ax.invert_yaxis()
        ax.set_xlabel(axis)
        ax.grid(axis="y", alpha=0.3)
    ax.set_title("What the sweep found")
    return ax


def _swept_line(ax: Axes, name: str, values: list[float], losses: np.ndarray) -> Axes:
    order = np.argsort(values)
    x = np.array(values, dtype=float)[order]
    _line(ax, x, losses[order], BLUE, "o", None)
    best = int(np.nanargmin(losses[order]))
    ax.plot(x[best], losses[order][best], "*", color=ORANGE, markersize=14, label="best")
    _scale(ax, x)
    ax.set_xlabel(name.replace("_", " "))
    ax.legend(frameon=False)
    return ax


def _scale(ax: Axes, x: np.ndarray) -> None:
    """Spread values of several orders of magnitude evenly; 0 keeps a place beside them."""
    positive = x[x > 0]
    if positive.size and positive.max() >= 10 * positive.min() and (x >= 0).all():
        if positive.size == x.size:
            ax.set_xscale("log")
        else:
            ax.set_xscale("symlog", linthresh=float(positive.min()))


def _surface(
    ax: Axes, table: list[dict[str, Any]], options: list[str], losses: np.ndarray, axis: str
) -> Axes:
    """Draw a cell for each pair of settings, coloured by the loss and labelled with it."""
    across, down = (_distinct([row[name] for row in table]) for name in options)
    grid = np.full((len(down), len(across)), math.nan)
    for row, loss in zip(table, losses, strict=True):
        at = (down.index(row[options[1]]), across.index(row[options[0]]))
        grid[at] = np.fmin(grid[at], loss)
    drawn = ax.imshow(grid, aspect="auto", origin="lower", cmap=GROWING)
    if grid.size <= 100:
        for (i, j), loss in np.ndenumerate(grid):
            if not math.isnan(loss):
                _cell(ax, j, i, f"{loss:.4g}", drawn)
    ax.set_xticks(range(len(across)), list(map(_value, across)))
    ax.set_yticks(range(len(down)), list(map(_value, down)))
    ax.set_xlabel(options[0].replace("_", " "))
    ax.set_ylabel(options[1].replace("_", " "))
    _colour_bar(ax, drawn, axis)
    return ax


def _distinct(values: list[Any]) -> list[Any]:
    """Return the values there are, numbers by size and others as they come."""
    found = list({str(value): value for value in values}.values())
    return sorted(found) if all(map(_is_number, found)) else found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else _short(value)


def _confusion_table(table: np.ndarray, names: list[str], ax: Axes | None) -> Axes:
    """Draw a cell for each pair of classes, coloured by its share of the true class's rows."""
    K = len(names)
    size = max(4.8, 1.6 + 0.45 * K)
    ax = _axes(ax, width=size + 1, height=size)
    rows = table.sum(axis=1, keepdims=True)
    share = np.divide(table, rows, out=np.zeros(table.shape), where=rows > 0)
    drawn = ax.imshow(share, cmap=GROWING, vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(table):
        if count:
            _cell(ax, j, i, f"{count:,.4g}" if count < 10_000 else f"{count:.1e}", drawn)
    ax.set_xticks(range(K), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(K), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title("Which classes are taken for which")
    _colour_bar(ax, drawn, "share of the true class")
    return ax


def _weight_images(
    coef: np.ndarray, names: list[str], shape: tuple[int, int], unit: str, ax: Axes | None
) -> Axes:
    """Draw an image for each class side by side, in one picture with lines between."""
    height, width = shape
    columns = math.ceil(math.sqrt(len(names) * height / width))
    rows = math.ceil(len(names) / columns)
    head = max(2, height // 4)  # of which the name of a class takes its room
    whole = np.full((rows * (height + head), columns * (width + 1)), math.nan)
    ax = _axes(ax, width=7.2, height=max(2.4, 6.4 * whole.shape[0] / whole.shape[1]))
    for k, (weights, name) in enumerate(zip(coef, names, strict=True)):
        top, left = k // columns * (height + head) + head, k % columns * (width + 1)
        whole[top : top + height, left : left + width] = weights.reshape(shape)
        ax.text(left + width / 2, top - 1, name, ha="center", va="bottom", fontsize=9)
    drawn = ax.imshow(whole, interpolation="nearest", **_signed(coef))
    ax.set_axis_off()
    ax.set_title("Weights of each class")
    _colour_bar(ax, drawn, unit)
    return ax


def _per(model: Model) -> str:
    unit = "unit" if model.deviations is None else "standard deviation"
    return f"weight per {unit} of the feature"


def _signed(values: np.ndarray) -> dict[str, Any]:
    """Return a map in which 0 is white and few extremes do not hide the rest."""
    largest = float(np.quantile(np.abs(values), 0.995)) or float(np.abs(values).max()) or 1.0
    return {"cmap": SIGNED, "vmin": -largest, "vmax": largest}


def _cell(ax: Axes, x: int, y: int, text: str, drawn: Any) -> None:
    """Write into a cell, in black or white as its colour is light or dark."""
    red, green, blue, _ = drawn.cmap(drawn.norm(drawn.get_array()[y, x]))
    is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
    ax.text(
        x, y, text, ha="center", va="center", fontsize=8, color="black" if is_light else "white"
    )


def _colour_bar(ax: Axes, drawn: Any, label: str) -> None:
    figure: Any = ax.get_figure()
    figure.colorbar(drawn, ax=ax, label=label)


def _reliability_axes(ax: Axes) -> Axes:
    ax.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="as sure as right")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("confidence: the largest probability")
    ax.set_ylabel("accuracy")
    return ax


def _bins(ax: Axes, report: Report, colour: str, marker: str, name: str) -> None:
    """Draw the accuracy of each bin; a mark is the larger, the more rows are in it."""
    bins = report.reliability
    x, y = [line.confidence for line in bins], [line.accuracy for line in bins]
    shares = np.array([line.weight for line in bins])
    ax.plot(x, y, color=colour, linewidth=1)
    label = f"{name} (calibration error {report.calibration_error:.4f})"
    ax.scatter(
        x,
        y,
        15 + 250 * shares / shares.sum(),
        c=colour,
        marker=marker,
        label=label,
        clip_on=False,
        zorder=3,
    )


def _line(ax: Axes, x: Any, y: Any, colour: str, marker: str, label: str | None) -> None:
    ax.plot(x, y, color=colour, marker=marker, markersize=5, label=label)


def _name_ticks(ax: Axes, which: str, names: list[str]) -> None:
    """Name the ticks of an axis, each where there is room and some where there is not."""
    step = math.ceil(len(names) / MOST_NAMED)
    getattr(ax, f"set_{which}ticks")(range(0, len(names), step), names[::step])


def _across(ax: Axes) -> Any:
    """Return coordinates that are shares of the width, and data in height."""
    return ax.get_yaxis_transform()


def _height(rows: int) -> float:
    return min(max(2.4, 1.4 + 0.24 * rows), 16)


def _axes(ax: Axes | None, width: float = 6.4, height: float = 4.4) -> Axes:
    if ax is not None:
        return ax
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def _short(label: object) -> str:
    """Return a name that fits beside an axis; a dollar would begin a formula."""
    text = printable(label)
    text = (
        text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
    return text.replace("$", r"\$")

"""The only place for commands that train models to learn of the data: no model is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fastsoftmax.cli.commands import Arguments, as_json, options_given, rows_given
from fastsoftmax.cli.console import Console
from fastsoftmax.cli.progress import Teller
from fastsoftmax.evaluation import formatting
from fastsoftmax.files import check_output, write_file
from fastsoftmax.options import TrainOptions

SHOWN = 20  # rows of an audit


def cross_validate(args: Arguments, console: Console) -> Iterable[str]:
    """Return how models do on rows that they have not seen."""
    given = _checked(args)

    from fastsoftmax.training.cross_validate import cross_validate as validate

    out = args["output"]
    found = validate(**_rows(args, console), folds=args["folds"], out=out, **given)
    if args["json"]:
        means = ("log_loss", "log_loss_error", "accuracy", "accuracy_error")
        facts: dict[str, Any] = {name: getattr(found, name) for name in means}
        return as_json({**facts, "reports": [each.as_dict() for each in found.reports]})
    lines: list[tuple[str, object]] = [
        (f"fold {i}", f"{each.rows:,} rows, {formatting.quality(each.log_loss, each.accuracy)}")
        for i, each in enumerate(found.reports)
    ]
    lines += [
        ("log-loss", f"{found.log_loss:.4f} +- {found.log_loss_error:.4f}"),
        ("accuracy", f"{100 * found.accuracy:.2f} % +- {100 * found.accuracy_error:.2f} %"),
    ]
    return formatting.aligned(lines if out is None else [*lines, ("file", out)])


def audit(args: Arguments, console: Console) -> Iterable[str]:
    """Return the rows whose classes are likely wrong."""
    given, out = _checked(args), args["output"]

    from fastsoftmax.data.formats.sink import format_of
    from fastsoftmax.data.formats.whole import table_bytes
    from fastsoftmax.training.audit import audit as audit_rows

    kind = None if out is None else format_of(out)
    found = audit_rows(**_rows(args, console), folds=args["folds"], **given)
    if kind is not None:
        write_file(out, [table_bytes(found, kind)])
    if args["json"]:
        return as_json({"rows": found.to_pylist(), "file": out})
    worst = [_suspect(row) for row in found.slice(0, SHOWN).to_pylist()]
    more = [("more", f"{len(found) - SHOWN:,} rows: see -o")] if len(found) > SHOWN else []
    written = [] if out is None else [("file", out)]
    return formatting.aligned([("rows", f"{len(found):,}"), *worst, *more, *written])


def _suspect(row: dict[str, Any]) -> tuple[str, object]:
    place = "" if row["file"] is None else f" ({row['file']}, {row['row_group']}, "
    place += f"{row['row_in_group']})" if place else ""
    said = f"{row['given']} (p {row['p_given']:.2g}), rather {row['suggested']}"
    return f"row {row['row']}", f"{said} (p {row['p_suggested']:.2g}){place}"


def learning_curve(args: Arguments, console: Console) -> Iterable[str]:
    """Return what models of fewer rows lose, and what twice the rows would gain."""
    given = _checked(args)
    if args["fractions"] is not None:
        given["fractions"] = args["fractions"]

    from fastsoftmax.training.learning_curve import learning_curve as draw_curve

    curve = draw_curve(**_rows(args, console), **given)
    if args["json"]:
        return as_json(asdict(curve))
    points = zip(curve.rows, curve.log_loss, curve.error, strict=True)
    lines: list[tuple[str, object]] = [
        (f"{rows:,} rows", f"log-loss {loss:.4f} +- {error:.4f}") for rows, loss, error in points
    ]
    gain = f"{curve.gain:.4f} +- {curve.forecast_error:.4f} of the log-loss"
    return formatting.aligned([*lines, ("twice the rows", f"would gain about {gain}")])


def _checked(args: Arguments) -> dict[str, Any]:
    """Return the options that are given; mistakes are found before anything heavy is imported."""
    given = options_given(args)
    TrainOptions.of(**given)
    if args.get("output") is not None:
        check_output(args["output"], args["data"])
    return given


def _rows(args: Arguments, console: Console) -> dict[str, Any]:
    """Return the rows that are trained on, and who is told how it goes."""
    return {
        **rows_given(args),
        "report": Teller(console, silent=args["quiet"] or args["verbose"]),
    }

"""The only place that writes a report page: HTML of facts, in one file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from fastsoftmax.evaluation.formatting import counted
from fastsoftmax.evaluation.page_style import SCRIPT, STYLE
from fastsoftmax.evaluation.svg import Series, escaped, line_chart, reliability_chart

MOST_COLUMNS = 20  # classes of which the confusion table is shown
MOST_OPEN = 10  # classes whose features are shown at once
SECTIONS = (
    ("good", "Is it good?"),
    ("sure", "Is it as right as it is sure?"),
    ("wrong", "Where is it wrong?"),
    ("features", "Which features decide?"),
    ("training", "How was it trained?"),
    ("data", "On what data?"),
)
# Nothing may be fetched, and nothing runs but what stands in the page.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"
)


def page_of(facts: dict[str, Any]) -> str:
    """Return the page that tells the facts of `facts_of`; they stand in it as JSON too."""
    title = "Model report" + (f": {escaped(facts['target'])}" if facts["target"] else "")
    bodies = (_good, _sure, _wrong, _features, _training, _data)
    version = escaped(facts["versions"].get("fastsoftmax", ""))
    links = "".join(f'<a href="#{name}">{head}</a>' for name, head in SECTIONS)
    sections = "".join(
        f'<section id="{name}" aria-labelledby="{name}-head"><h2 id="{name}-head">{head}</h2>'
        f"{body(facts)}</section>"
        for (name, head), body in zip(SECTIONS, bodies, strict=True)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#good">Skip to the results</a>'
        f"<header><h1>{title}</h1>{_verdict(facts)}"
        f'<nav aria-label="Sections">{links}</nav></header><main>{sections}</main>'
        f"<footer>Made by fastsoftmax {version}. The facts stand"
        ' in this file as JSON, in the element "facts".</footer>'
        f'<script type="application/json" id="facts">{_json(facts)}</script>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _json(facts: dict[str, Any]) -> str:
    """Return JSON that cannot end the element that holds it."""
    text = json.dumps(facts, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _verdict(facts: dict[str, Any]) -> str:
    report = facts["report"]
    prior = report["log_loss_prior"]
    beside = "" if prior is None else f"; knowing only how frequent classes are: {prior:.3f}"
    return (
        f'<p class="verdict">Right in <strong>{_share(report["accuracy"])}</strong> of'
        f" {report['rows']:,} rows. Log-loss <strong>{_loss(report['log_loss'])}</strong> nats"
        f"{beside}.</p>"
    )


def _good(facts: dict[str, Any]) -> str:
    report = facts["report"]
    cards = [
        ("accuracy", _share(report["accuracy"])),
        ("log-loss", _loss(report["log_loss"])),
        ("macro F1", f"{report['macro_f1']:.4f}"),
        ("weighted F1", f"{report['weighted_f1']:.4f}"),
    ]
    if report["top_k"] is not None:
        cards.insert(1, (f"top-{report['top_k']} accuracy", _share(report["top_k_accuracy"])))
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cards)
    rows = [
        [_cell(line["label"], head=True), *(_number(line[name], 4) for name in
         ("precision", "recall", "f1")), _number(line["support"])]
        for line in report["per_class"]
    ]  # fmt: skip
    heads = ("class", "precision", "recall", "F1", "rows")
    return f'<dl class="cards">{shown}</dl><h3>Each class</h3>{_table(heads, rows, "Each class")}'


def _sure(facts: dict[str, Any]) -> str:
    bins = facts["report"]["reliability"]
    weight = sum(line["weight"] for line in bins)
    sure = sum(line["weight"] * line["confidence"] for line in bins) / weight
    right = sum(line["weight"] * line["accuracy"] for line in bins) / weight
    error = facts["report"]["calibration_error"]
    told = "about as sure as it is right"
    if abs(sure - right) > 0.01:
        told = "too sure of itself" if sure > right else "less sure than it may be"
    hint = "" if abs(sure - right) <= 0.01 else (
        " <code>fastsoftmax calibrate</code> on rows that training did not see mends that."
    )  # fmt: skip
    said = (
        f"<p>On average it gives its choice {_share(sure)}, and is right in {_share(right)}: it is"
        f" {told}. The gap within a bin of confidence is {error:.4f} in the mean.{hint}</p>"
    )
    return said + reliability_chart(bins, f"Accuracy by confidence; calibration error {error:.4f}")


def _wrong(facts: dict[str, Any]) -> str:
    parts = []
    table = facts["report"]["confusion"]
    labels = [line["label"] for line in facts["report"]["per_class"]]
    if table is not None and len(labels) <= MOST_COLUMNS:
        parts.append("<h3>True classes and predicted ones</h3>" + _confusion(table, labels))
    rows = [
        [_cell(c["true"], head=True), _cell(c["predicted"]), _number(c["rows"]),
         _number(100 * c["share"], 2)]
        for c in facts["confusions"]
    ]  # fmt: skip
    if rows:
        heads = ("true", "predicted", "rows", "% of the true class")
        parts.append("<h3>The largest confusions</h3>" + _table(heads, rows, "Confusions"))
    surprises = [_surprise(row) for row in facts["surprises"]]
    columns = ("row", "given", "predicted", "% for given", "% for predicted", "what speaks for it")
    parts.append(
        "<h3>The most surprising rows</h3><p>Those whose class the model holds least likely: wrong"
        f" labels and odd rows come first.</p>{_table(columns, surprises, 'Surprising rows')}"
    )
    return "".join(parts)


def _surprise(row: dict[str, Any]) -> list[str]:
    reasons = ", ".join(f"{name} = {value:.4g}" for name, value, _ in row["reasons"])
    return [
        _cell(row["place"], head=True),
        _cell(row["given"]),
        _cell(row["predicted"]),
        _number(100 * row["p_given"], 4),
        _number(100 * row["p_predicted"], 2),
        _cell(reasons),
    ]


def _confusion(table: Sequence[Sequence[float]], labels: Sequence[Any]) -> str:
    heads = "".join(f'<th scope="col">{escaped(label)}</th>' for label in labels)
    lines = []
    for label, row in zip(labels, table, strict=True):
        total = sum(row) or 1.0
        cells = "".join(_shaded(n, n / total) for n in row)
        lines.append(f'<tr><th scope="row">{escaped(label)}</th>{cells}</tr>')
    return _scrolling(
        '<table class="confusion"><caption>A row for each true class, a column for each predicted'
        f" one; the darker, the larger the share of the true class</caption><thead><tr><th></th>"
        f"{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>",
        "Confusion table",
    )


def _shaded(rows: float, share: float) -> str:
    hot = ' class="hot"' if share > 0.5 else ""
    shade = f"background:rgb(0 114 178/{share:.3f})"
    return f'<td{hot} style="{shade}">{_amount(rows) if rows else ""}</td>'


def _features(facts: dict[str, Any]) -> str:
    per = facts["weights_per"]
    said = (
        f"<p>The largest weights of each class: what one {per} more of the feature adds to the"
        " logit of the class.</p>"
    )
    ranked = facts["features"]
    largest = max((abs(w) for c in ranked for _, w in c["features"]), default=1.0) or 1.0
    blocks = [_weights(line, largest) for line in ranked]
    grid = f'<div class="grid">{"".join(blocks[:MOST_OPEN])}</div>'
    if len(blocks) > MOST_OPEN:
        more = f'<div class="grid">{"".join(blocks[MOST_OPEN:])}</div>'
        grid += (
            f"<details><summary>{len(blocks) - MOST_OPEN} more classes</summary>{more}</details>"
        )
    return said + grid


def _weights(line: dict[str, Any], largest: float) -> str:
    rows = "".join(
        f"<tr><td>{escaped(f'[{name}]' if isinstance(name, int) else name)}</td>"
        f'<td class="number">{weight:+.3g}</td><td class="bar"><i class='
        f'"{"plus" if weight > 0 else "minus"}" style="width:{100 * abs(weight) / largest:.1f}%">'
        "</i></td></tr>"
        for name, weight in line["features"]
    )
    empty = "<tr><td>no weight but 0</td></tr>"
    return (
        f'<table class="weights"><caption>{escaped(line["class"])}</caption>{rows or empty}</table>'
    )


def _training(facts: dict[str, Any]) -> str:
    history, parts = facts["history"], []
    if history:
        seen, over = 0, []
        for line in history:
            seen += line["rows"]
            over.append(float(seen))
        losses = [line["log_loss"] for line in history]
        series = [Series("progressive", list(zip(over, losses, strict=True)), "first")]
        checked = [(x, line["validation_log_loss"]) for x, line in zip(over, history, strict=True)
                   if line.get("validation_log_loss") is not None]  # fmt: skip
        if checked:
            series.append(Series("validation", checked, "second"))
        title = f"Log-loss over the rows seen, in {counted(len(history), 'epoch')}"
        parts.append(line_chart(series, title, "rows seen", "log-loss (nats)"))
    ended = f" It ended by: {escaped(facts['ended'])}." if facts["ended"] else ""
    rows = "an unknown number of" if facts["rows"] is None else f"{facts['rows']:,}"
    parts.append(f"<p>{rows} rows an epoch, {counted(len(history), 'epoch')}.{ended}</p>")
    reasons = facts["reasons"]
    options = [
        [_cell(name, head=True), _cell(value), _cell(reasons.get(name, ""))]
        for name, value in facts["options"].items()
        if value is not None
    ]
    parts.append(_table(("option", "value", "why"), options, "Options"))
    return "".join(parts)


def _data(facts: dict[str, Any]) -> str:
    listed = [
        [_cell(what, head=True), _cell(file["name"]), _number(file["rows"])]
        for what, key in (("trained on", "trained_on"), ("judged on", "judged_on"))
        for file in facts[key]
    ]
    treated = [f"{count:,} {escaped(what)}" for what, count in facts["report"]["treated"].items()]
    said = (
        f"<p>{facts['classes']:,} classes, {facts['n_features']:,} features, weights of"
        f" {escaped(facts['dtype'])}. Judged on {facts['report']['rows']:,} rows.</p>"
    )
    if treated:
        said += f"<p>Treated while these were read: {', '.join(treated)}.</p>"
    if listed:
        said += _table(("what", "file", "rows"), listed, "Files")
    else:
        said += "<p>All rows were in memory, so there is no file to name.</p>"
    versions = ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in facts["versions"].items())
    return said + f"<p>Versions: {versions or 'not known'}.</p>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], name: str) -> str:
    """Return a table whose columns can be sorted, and that scrolls where it is too wide or long."""
    listed = list(rows)
    numbers = ['class="number"' in cell for cell in listed[0]] if listed else [False] * len(heads)
    first = "".join(
        f'<th scope="col"{" class=number" * is_number}>{escaped(head)}</th>'
        for head, is_number in zip(heads, numbers, strict=True)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in listed)
    table = f"<thead><tr>{first}</tr></thead><tbody>{body}</tbody>"
    return _scrolling(f'<table class="sorted">{table}</table>', name)


def _scrolling(table: str, name: str) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(name)}">{table}</div>'
    )


def _cell(value: object, *, head: bool = False) -> str:
    text = escaped("" if value is None else value)
    return f'<th scope="row">{text}</th>' if head else f"<td>{text}</td>"


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return '<td class="number">not known</td>'
    text = _amount(value) if digits is None else f"{value:.{digits}f}"
    return f'<td class="number" data-value="{value!r}">{text}</td>'


def _amount(weight: float) -> str:
    return f"{weight:,.0f}" if weight == int(weight) else f"{weight:,.4g}"


def _share(part: float) -> str:
    return f"{100 * part:.2f} %"


def _loss(loss: float | None) -> str:
    return "infinite" if loss is None else f"{loss:.4f}"

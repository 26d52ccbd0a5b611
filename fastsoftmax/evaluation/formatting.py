"""The only place that puts facts into lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MANY = 10  # more names than this are cut short
MOST_WEIGHED = 20  # a line for each of more classes would be scrolled past


def printable(text: object) -> str:
    r"""Return text in which control characters are spelt out, as \x1b: a terminal obeys none."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def aligned(facts: Iterable[tuple[str, object]]) -> list[str]:
    """Return a line for each name and value, the values below each other."""
    pairs = [(printable(name), printable(value)) for name, value in facts]
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs]


def shortened(values: Iterable[object]) -> str:
    """Return values separated by commas, the last ones of many only counted."""
    listed = [str(value) for value in values]
    more = f", ... ({len(listed):,} in all)" if len(listed) > MANY else ""
    return ", ".join(listed[:MANY]) + more


def counted(count: int, noun: str) -> str:
    """Return a number of things, in words: 1 epoch, 2 epochs."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as 1.23 s, 4:05 or 1:02:03."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quality(log_loss: float, accuracy: float) -> str:
    """Return a loss and an accuracy."""
    return f"log-loss {log_loss:.4f}, accuracy {100 * accuracy:.2f} %"


def treated_facts(treated: dict[str, int]) -> list[tuple[str, object]]:
    """Return what was done to values that were not there, or not known."""
    if not treated:
        return []
    shown = shortened(f"{count:,} {what}" for what, count in treated.items())
    return [("treated", shown)]


def report_facts(report: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the facts of a Report that are one number each."""
    prior, k = report["log_loss_prior"], report["top_k"]
    beside = "" if prior is None else f" (class frequencies alone: {prior:.4f})"
    top = [] if k is None else [(f"top-{k} accuracy", f"{100 * report['top_k_accuracy']:.2f} %")]
    return [
        ("rows", f"{report['rows']:,}"),
        ("log-loss", f"{report['log_loss']:.4f}{beside}"),
        ("accuracy", f"{100 * report['accuracy']:.2f} %"),
        *top,
        ("macro F1", f"{report['macro_f1']:.4f}"),
        ("weighted F1", f"{report['weighted_f1']:.4f}"),
        ("calibration error", f"{report['calibration_error']:.4f}"),
        *treated_facts(report["treated"]),
    ]


def calibration_facts(
    temperature: float, before: dict[str, Any], after: dict[str, Any]
) -> list[tuple[str, object]]:
    """Return what a temperature did, by the Reports of before and after it."""
    changes = (("log-loss", "log_loss"), ("calibration error", "calibration_error"))
    return [
        ("temperature", f"{temperature:.4g}"),
        *((name, f"{after[key]:.4f} (before: {before[key]:.4f})") for name, key in changes),
        ("rows", f"{after['rows']:,}"),
        *treated_facts(after["treated"]),
    ]


def packed_facts(packed: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what packing did."""
    stored = f"{packed['dtype']}, a scale for each feature" if packed["scaled"] else packed["dtype"]
    lost = "nothing"
    if packed["lost"]:
        lost = (
            f"up to {packed['lost']:.3g} ({packed['worst']}), up to"
            f" {packed['lost_relative']:.2g} of a number"
        )
    return [
        ("rows", f"{packed['rows']:,}"),
        ("features", f"{packed['features']:,} ({stored})"),
        ("bytes", f"{packed['bytes']:,}"),
        ("lost", lost),
    ]


def model_facts(model: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the facts of a described model, cut to what fits on a screen."""
    record = model["record"]
    facts: list[tuple[str, object]] = [
        ("model", f"softmax regression, {model['dtype']}"),
        ("classes", f"{len(model['classes'])} ({model['kind']}): {shortened(model['classes'])}"),
        ("features", _features_text(model)),
        *((name, record[name]) for name in ("target", "weight", "rows") if record.get(name)),
    ]
    named = (("options", record.get("options", {})), ("versions", record.get("versions", {})))
    facts += [(name, ", ".join(f"{k}={v}" for k, v in of.items())) for name, of in named if of]
    facts += _origin_facts(record)
    if "temperature" in record:
        facts.append(("temperature", f"{record['temperature']:.4g}"))
    facts += [(f"epoch {line['epoch']}", _history_text(line)) for line in model["history"][-MANY:]]
    return [*facts, *_weight_facts(model)]


def _origin_facts(record: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the files that a model and those before it were trained on, and what these were."""
    facts: list[tuple[str, object]] = []
    for name, key in (("data", "data"), ("before that", "ledger")):
        files = [f"{entry['name']} ({entry['rows']:,} rows)" for entry in record.get(key, [])]
        if files:
            facts.append((name, shortened(files)))
    for parent in record.get("lineage", []):
        count = f"{parent['rows']:,} rows" if parent["rows"] else "rows"
        taken = f"{count} in {counted(parent['epochs'], 'epoch')}"
        facts.append(("trained on from", f"model {parent['sha256'][:8]}, of {taken}"))
    return facts


def _weight_facts(model: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the largest weights of each class, where there are few classes."""
    per, classes = f"per {model['weights_per']} of the feature", model["top_features"]
    if len(classes) > MOST_WEIGHED:
        return [("top weights", f"{per}, of {len(classes):,} classes: see --json")]
    return [("top weights", per), *((f"class {c['class']}", _weights_text(c)) for c in classes)]


def _weights_text(ranked: dict[str, Any]) -> str:
    named = ((feature["name"], feature["weight"]) for feature in ranked["features"])
    texts = (f"{j if isinstance(j, str) else f'[{j}]'} {weight:+.4g}" for j, weight in named)
    return ", ".join(texts) or "none"


def data_facts(data: dict[str, Any]) -> list[tuple[str, object]]:
    """Return the facts of a described data set."""
    facts: list[tuple[str, object]] = [
        (name, f"{data[name]:,}") for name in ("rows", "files", "pieces")
    ]
    facts += [(f"column {column['name']}", column["type"]) for column in data["columns"]]
    facts += [(f"class {line['class']}", f"{line['rows']:,}") for line in data.get("classes", ())]
    found = data.get("ranges", [])
    facts += [(f"range {line['name']}", _range_text(line)) for line in found[:MANY]]
    if len(found) > MANY:
        nulls = sum(line["nulls"] for line in found)
        odd = sum(line["not_finite"] for line in found)
        rest = f"{len(found) - MANY:,} more columns; in all {nulls:,} nulls, {odd:,} not finite"
        facts.append(("ranges", rest))
    if "reading" in data:
        facts += _reading_facts(data)
    return [*facts, *map(_warning, data.get("warnings", []))]


def forecast_facts(found: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what a run would take."""
    return [
        ("rows", f"{found['rows']:,}"),
        ("features", f"{found['features']:,}"),
        ("classes", f"{found['classes']:,}"),
        ("order", found["order"]),
        ("memory", f"about {found['memory_bytes'] / 1e6:,.0f} MB beyond the interpreter"),
        ("time", f"about {duration(found['seconds'])}"),
    ]


def _warning(found: dict[str, Any]) -> tuple[str, object]:
    """Return what will go wrong."""
    where = "" if found["column"] is None else f'column "{found["column"]}": '
    return f"warning: {found['kind']}", f"{where}{found['detail']}"


def _range_text(line: dict[str, Any]) -> str:
    text = "none" if line["lowest"] is None else f"{line['lowest']:g} to {line['highest']:g}"
    for what, count in (("nulls", line["nulls"]), ("not finite", line["not_finite"])):
        text += f", {count:,} {what}" if count else ""
    return text


def _reading_facts(data: dict[str, Any]) -> list[tuple[str, object]]:
    """Return what reading and training would take."""
    reading, run = data["reading"], data["run"]
    speed, packed = reading["rows_per_second"], reading["packed_rows_per_second"]
    facts: list[tuple[str, object]] = [
        ("layout", f"{reading['layout']}, {reading['features']:,} numbers a row"),
        ("reads", f"{speed:,.0f} rows/s in one thread, measured on the first rows"),
    ]
    if packed is not None:
        gain = f"{packed / speed:.1f} times as fast to read"
        room = f"{reading['packed_bytes'] / 1e6:,.1f} MB for {reading['bytes'] / 1e6:,.1f} MB"
        facts.append(("packed", f"{gain}, {room}, estimated"))
    where = "in memory" if run["fits_in_memory"] else f"in windows of {run['window_rows']:,} rows"
    held = (run["bytes_of_rows"] + run["bytes_of_weights"]) / 1e6
    facts.append(
        ("a run holds", f"{held:,.1f} MB, rows shuffled {where}, at memory={run['memory']}")
    )
    facts.append(("first epoch", f"{duration(run['seconds_to_read'])} to read, estimated"))
    return facts


def column_text(column: dict[str, Any]) -> str:
    """Return a column's name, its width where it holds vectors."""
    return column["name"] if column["width"] is None else f"{column['name']}[{column['width']}]"


def _features_text(model: dict[str, Any]) -> str:
    named = shortened(map(column_text, model["columns"]))
    return f"{model['n_features']}: {named}" if named else f"{model['n_features']}, without names"


def _history_text(line: dict[str, Any]) -> str:
    text = f"{line['rows']:,} rows, {quality(line['log_loss'], line['accuracy'])}"
    if line.get("validation_log_loss") is not None:
        text += f"; validation {quality(line['validation_log_loss'], line['validation_accuracy'])}"
    return text

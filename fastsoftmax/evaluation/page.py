"""The only place that gathers what a report page tells, in one read of the rows, and writes it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from fastsoftmax.data.source import Source
from fastsoftmax.evaluation.evaluate import TOP_K, empty_totals, nothing_judged, open_judged
from fastsoftmax.evaluation.html import page_of
from fastsoftmax.evaluation.report import Report
from fastsoftmax.evaluation.surprises import Surprise, Surprises
from fastsoftmax.files import check_writable, write_file
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp, scored

MOST_SURPRISING, MOST_CONFUSIONS, MOST_RANKED = 20, 20, 100
MOST_TABULATED = 50  # classes of which the page holds the whole confusion table
NAMED_FILES = 100


def write_report(
    model: Model,
    data: Any,
    path: str | os.PathLike[str],
    target: Any = None,
    weight: Any = None,
) -> Report:
    """Write a page of HTML that says how `model` does on `data`, and why; return the Report.

    The page is one file that needs no network. data, target, weight: as for `evaluate`; the rows
    are read once.
    """
    check_writable(path)
    source = open_judged(model, data, target, weight)
    try:
        report, surprises = _judge(model, source)
        files = source.fingerprint()
    finally:
        source.close()
    write_file(path, [page_of(facts_of(model, report, surprises, files)).encode()])
    return report


def facts_of(
    model: Model, report: Report, surprises: list[Surprise], files: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what the page tells, as JSON can hold it."""
    record, told = model.record, report.as_dict()
    if len(model.classes_) > MOST_TABULATED:
        told["confusion"] = None
    known = [*record.get("data", []), *record.get("ledger", [])]
    ranked = list(model.top_features(5).items())[:MOST_RANKED]
    return {
        "target": record.get("target"),
        "report": told,
        "confusions": _confusions(model, report),
        "surprises": [asdict(surprise) for surprise in surprises],
        "features": [{"class": label, "features": top} for label, top in ranked],
        "weights_per": "unit" if model.deviations is None else "standard deviation",
        "classes": len(model.classes_),
        "n_features": model.n_features,
        "dtype": str(model.dtype),
        "history": model.history,
        "options": record.get("options", {}),
        "reasons": record.get("reasons", {}),
        "ended": record.get("ended"),
        "temperature": record.get("temperature"),
        "rows": record.get("rows"),
        "versions": record.get("versions", {}),
        "trained_on": _named(known),
        "judged_on": _named(files),
    }


def _judge(model: Model, source: Source) -> tuple[Report, list[Surprise]]:
    """Return the Report of the rows, and the most surprising of them."""
    totals = empty_totals(model, TOP_K if len(model.classes_) > TOP_K else None)
    surprises = Surprises(model.parameters, source, MOST_SURPRISING)
    for scores in scored(model.parameters, source, model.classes_):
        labels, weights = scores.chunk.labels, scores.chunk.weights
        assert labels is not None  # asked for by passing the classes
        z, y = scores.logits.astype(np.float64), labels[scores.span]
        w = np.ones(len(z)) if weights is None else weights[scores.span]
        counts = w > 0
        totals.add(z[counts], y[counts], w[counts])
        losses = log_sum_exp(z) - z[np.arange(len(y)), y]
        surprises.add(scores, np.where(counts, losses, -1.0), y)
    if totals.rows == 0:
        raise nothing_judged()
    return totals.report(model.classes_.values, source.treated()), surprises.found()


def _confusions(model: Model, report: Report) -> list[dict[str, Any]]:
    """Return the largest confusions, largest first: how many rows, and of the class what share."""
    if report.confusion is None:
        return []
    wrong, labels = np.array(report.confusion, dtype=np.float64), model.classes_.values
    support = wrong.sum(axis=1)
    np.fill_diagonal(wrong, 0)
    found = []
    for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS].tolist():
        i, j = divmod(at, len(labels))
        if wrong[i, j] > 0:
            rows = float(wrong[i, j])
            pair = {"true": labels[i], "predicted": labels[j]}
            found.append({**pair, "rows": rows, "share": rows / float(support[i])})
    return found


def _named(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": file["name"], "rows": file.get("rows")} for file in files[:NAMED_FILES]]

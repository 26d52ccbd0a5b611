"""The only place for how a model goes on from another: what it leaves out, keeps and remembers."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from fastsoftmax.data.manifest import merged
from fastsoftmax.data.source import Source
from fastsoftmax.errors import DataError
from fastsoftmax.model.model import Model
from fastsoftmax.options import TrainOptions

logger = logging.getLogger("fastsoftmax")

# How many passes of one model count, however many full gradients it took: from the optimum of the
# breast cancer data, steps as large as those after one pass led away (log-loss 0.06 to 0.27), those
# after ten did not.
PASSES_COUNTED = 10


def leave_out(source: Source, init: Model) -> None:
    """Leave out the rows that the model to start from was trained on."""
    count = source.leave_out(init.ledger)
    if source.rows == 0:
        raise DataError(
            "the model to start from was trained on all of these rows: give others, or seen=again."
        )
    if count:
        logger.info("%s rows left out, which the model to start from was trained on", f"{count:,}")


def is_new(source: Source, init: Model | None, options: TrainOptions) -> Model | None:
    """Return the model to start from, if it is known that it was trained on none of the rows."""
    known = (
        init is not None and options.reading.seen == "skip" and init.ledger and source.fingerprint()
    )
    return init if known else None


def going_on(options: TrainOptions, init: Model | None) -> TrainOptions:
    """Return the options with which a model, if there is one, goes on to rows that are new to it.

    Unless told otherwise they are seen once, with steps that go on to fall, and the penalty stays:
    full gradients of new rows alone, or many passes, would forget the old ones.
    """
    if init is None or options.by_hand:
        return options
    chosen: dict[str, Any] = {}
    if options.steps.epochs == "auto" and options.stopping.solver == "sgd":
        chosen["epochs"] = 1
        if options.steps.schedule == "auto":
            chosen["schedule"] = "inverse"
    known = init.record.get("options", {})
    if options.penalty.l2 == "auto" and isinstance(known.get("l2"), float):
        chosen["l2"] = known["l2"]
        if options.penalty.standardize == "auto":
            scaled = options.penalty.scaling != "off"
            chosen["standardize"] = bool(known.get("standardize")) and scaled
    return options.changed(**chosen)


def rows_taken(init: Model | None) -> tuple[int, int]:
    """Return how many rows the first of a line of models had, and all of them stepped over."""
    if init is None:
        return 0, 0
    line = [each for each in (*init.record.get("lineage", []), _taken(init)) if each["rows"]]
    taken = sum(each["rows"] * min(each["epochs"], PASSES_COUNTED) for each in line)
    return (line[0]["rows"] if line else 0), taken


def record(init: Model | None, data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a model trained on `data` remembers of those it comes from, the first one first.

    lineage: their digests, rows and epochs. ledger: what they were trained on beside `data`.
    """
    if init is None:
        return {}
    digest = hashlib.sha256(init.weights.tobytes() + init.bias.tobytes()).hexdigest()
    parent = {"sha256": digest, **_taken(init)}
    before = merged(init.ledger, data)
    lineage = {"lineage": [*init.record.get("lineage", []), parent]}
    return {**lineage, "ledger": before} if before else lineage


def _taken(model: Model) -> dict[str, Any]:
    """Return what a model tells of its run to those that come after it."""
    epochs = len(model.history)
    if model.record.get("ended") in ("floor", "tolerance"):  # it has come to the end of its way
        epochs = max(epochs, PASSES_COUNTED)
    return {"rows": model.record.get("rows"), "epochs": epochs}

"""The only place that says which run a checkpoint is of: all that shapes the model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.errors import OptionError
from fastsoftmax.labels import Classes
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.checkpoint import MODIFIED
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.version import versions


def identity_of(
    source: Source,
    stats: LabelStats | None,
    validation: Source | None,
    settings: Sequence[TrainOptions],
    inputs: Inputs,
) -> dict[str, Any]:
    """Return what is compared when a run is resumed."""
    if stats is None:
        raise OptionError("a reader can be read once, so nothing can be resumed: no checkpoint=")
    shaping = [options.shaping() for options in settings]
    init, classes = inputs.init, stats.classes
    start = 0 if init is None else zlib.crc32(init.coef.tobytes() + init.intercept.tobytes())
    return {
        "options": shaping[0] if len(shaping) == 1 else {str(i): o for i, o in enumerate(shaping)},
        "versions": versions(),
        "data": _known(source, classes),
        "features": _features(source),
        "classes": [classes.kind, list(classes.values)],
        "counts": stats.counts.tolist(),
        "weights": [float(mass) for mass in stats.mass],
        "weights_as_given": inputs.weights_as_given,
        "init": start,
        "validation": validation and _known(validation, classes),
    }


def _features(source: Source) -> list[Any]:
    """Return the names of the features; of those of sparse columns and texts a checksum."""
    if source.columns is None:
        return [source.n_features]
    found: list[Any] = []
    for column in source.columns:
        if column.sparse is not None:
            found += [column.name, zlib.crc32(column.sparse.index.tobytes())]
        elif column.text is not None:
            found += [column.name, column.text.checksum()]
        else:
            found += column.feature_names
    return found


def _known(source: Source, classes: Classes) -> dict[str, Any]:
    """Return what a source is known by: its files, or a checksum of its rows."""
    facts = source.fingerprint() or [{"crc32": _checksum(source, classes)}]
    times = source.modified() or [0]
    pairs = zip(facts, times, strict=True)
    return {str(i): {**each, MODIFIED: when} for i, (each, when) in enumerate(pairs)}


def _checksum(source: Source, classes: Classes) -> int:
    """Return a checksum of rows that have no file to be known by."""
    found = 0
    for chunk in source.chunks(classes):
        features = (array for part in chunk.parts for array in part.arrays)
        for array in (*features, chunk.labels, chunk.weights):
            if array is not None:
                found = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, found)
    return found

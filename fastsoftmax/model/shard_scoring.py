"""The only place where shards of rows meet a model: each a task that predicts, in source order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.inference.answers import Answer
from fastsoftmax.model import scoring
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.options import Reading, Sharding

if TYPE_CHECKING:
    from fastsoftmax.data.loading.shard_rows import Shard
    from fastsoftmax.data.source import Source

PREDICT, PROBA, LOG_PROBA, DECISION = "classes", "probabilities", "log-probabilities", "logits"
ANSWERED_ROWS = 2**16  # of a task whose answers are sent back, about
Found = tuple[list[Answer], dict[tuple[int, int], dict[str, int]]]


def predicted(model: Parameters, data: Any, kind: str, sharding: Sharding) -> np.ndarray:
    """Return what is asked for of each row of `data`, in their order."""
    from fastsoftmax.data.open import in_one_place, open_source
    from fastsoftmax.data.preprocessing import NullPolicy

    data = in_one_place(data)
    policy = NullPolicy(model.nulls)
    with closing(
        open_source(data, like=model.columns, like_width=model.n_features, null_policy=policy)
    ) as source:
        found = answers_in_order(model, source, kind, sharding)
        return scoring.stack(
            (scoring.without_dropped(answer, source) for answer in found), source.rows
        )


def answers_in_order(
    model: Parameters, source: Source, kind: str, sharding: Sharding
) -> Iterator[Answer]:
    """Yield what is asked for of all rows, in their order: of some rows a task."""
    from fastsoftmax.data.loading.deal import count_of
    from fastsoftmax.data.loading.shards import dealt

    reading = Reading(cache="off")
    count = count_of(source, sharding, reading)
    tasks = replace(sharding, shards=max(count, -(-(source.rows or 0) // ANSWERED_ROWS), 1))
    with dealt(source, tasks, reading, in_order=True) as shards:
        ahead = 2 * shards.engine.carrier.size  # answers that wait take memory
        for answers, treated in shards.each("predict", answers_of, model, kind, ahead=ahead):
            source.take_treated(treated)
            yield from answers


def answers_of(source: Source, shard: Shard, model: Parameters, kind: str) -> Found:
    """Return what is asked for of the rows of a shard."""
    return list(_answered(source, shard, model, kind)), source.treated_by_place()


def write_files(
    model: Parameters, source: Source, folder: str, sharding: Sharding, how: dict[str, Any]
) -> int:
    """Write the predictions of each shard to a file of its own in a folder; return the rows.

    Their names are in the order of the rows. how: as `write_predictions` takes it.
    """
    from fastsoftmax.data.loading.deal import count_of
    from fastsoftmax.data.loading.shards import dealt

    os.makedirs(folder, exist_ok=True)
    reading = Reading(cache="off")
    tasks = replace(sharding, shards=count_of(source, sharding, reading))
    total = 0
    with dealt(source, tasks, reading, in_order=True) as shards:
        for rows, treated in shards.each("predict", write_file, model, folder, how):
            source.take_treated(treated)
            total += rows
    return total


def write_file(
    source: Source, shard: Shard, model: Parameters, folder: str, how: dict[str, Any]
) -> tuple[int, dict[tuple[int, int], dict[str, int]]]:
    """Write the predictions of a shard to its file, as a whole or not at all; return the rows."""
    if not shard.rows:
        return 0, {}
    path = os.path.join(folder, f"part-{shard.number:05d}.{how['format']}")
    answers = _answered(source, shard, model, PROBA)
    rows = scoring.write_predictions(model, source, path, answers=answers, **how)
    return rows, source.treated_by_place()


def _answered(source: Source, shard: Shard, model: Parameters, kind: str) -> Iterator[Answer]:
    from fastsoftmax.data.loading.shard_rows import chunks_of

    finishes: dict[str, scoring.Finish] = {
        PREDICT: scoring.classes_of(model),
        PROBA: scoring.softmax,
        LOG_PROBA: scoring.log_softmax,
        DECISION: np.asarray,
    }
    return scoring.answered(model, source, finishes[kind], chunks_of(source, shard, None))

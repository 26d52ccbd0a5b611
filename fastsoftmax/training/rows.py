"""The only place for the rows of a run: in which order they come, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_plan, choose_reading
from fastsoftmax.data.loading.shuffle import row_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import Mixing
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.labels import Classes
from fastsoftmax.options import TrainOptions


class TrainingRows:
    """The rows of a source, in windows, and those that losses are validated on.

    mass (K,): the weight of the rows of each class, as far as they were met. validation: brings
    rows of other data, or None where `is_validated` by rows of these that are held out.
    """

    def __init__(
        self,
        source: Source,
        classes: Classes,
        stats: LabelStats | None,
        options: TrainOptions,
        *,
        plan: Sequence[Any] | None = None,
        validation: Loader | None = None,
    ) -> None:
        """plan: its kind, window, buckets and first, where a run that is resumed knows them."""
        self.source, self.classes, self.stats, self.validation = source, classes, stats, validation
        self.seed, held = options.shuffling.seed, options.shuffling.holdout
        segments = None if stats is None else stats.segments
        # What is given by hand needs no look at all rows before the first step.
        streams = options.leaves_nothing_open
        self.plan = choose_plan(
            source, options.shuffling, options.reading, segments, streams=streams
        )
        if plan is not None:
            kind, window, buckets, first = plan
            self.plan = replace(self.plan, kind=kind, window=window, buckets=buckets, first=first)
        rereads = options.steps.epochs != 1 or held is not None
        read = choose_reading(source, self.plan, options.reading, rereads=rereads)
        self.loader = Loader(source, classes, self.plan, read)
        self.is_validated = validation is not None or held is not None
        self.mass = np.zeros(len(classes)) if stats is None else stats.mass

    def close(self) -> None:
        """Stop reading; the source stays the caller's to close."""
        if self.validation is not None:
            self.validation.close()
        self.loader.close()

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """Yield the windows of an epoch from number `first`."""
        return self.loader.epoch(self.seed, epoch, first)

    def all(self) -> Iterator[Window]:
        """Yield all rows, the same at each call."""
        return self.loader.all(self.seed)

    def order(self, window: Window, epoch: int) -> np.ndarray:
        """Return the order in which a window's rows take their steps."""
        return row_order(self.plan, window.rows, self.seed, epoch, window.index)

    def sample(self, count: int) -> Window | None:
        """Return up to so many rows from all over the data, the same at each call; see Loader."""
        return self.loader.sample(self.seed, count)

    def held_out(self) -> Iterator[Window]:
        """Yield the windows in which rows to validate on stand."""
        loader = self.loader if self.validation is None else self.validation
        return loader.all(self.seed)

    def count(self, window: Window, order: np.ndarray, weight: np.ndarray) -> None:
        """Note that rows of these weights took a step."""
        self.mass += np.bincount(window.labels[order], weight, len(self.mass))

    def new_mixing(self) -> Mixing | None:
        """Return what measures how well windows mix the rows, where they do not hold all."""
        if self.stats is None or self.plan.kind not in ("window", "full"):
            return None
        return Mixing(self.stats.counts)

    def add_to(self, mixing: Mixing | None, window: Window) -> None:
        """Let a window count in how well rows are mixed."""
        if mixing is not None:
            trained = window.labels if window.held is None else window.labels[~window.held]
            mixing.add(np.bincount(trained, minlength=len(self.classes)))

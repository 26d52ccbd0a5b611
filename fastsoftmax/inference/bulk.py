"""The only place that scores many rows: several threads read and score pieces, in source order.

Each thread decodes a piece and scores it where it lies in the cache; only what was asked for is
handed on. Sums are over runs of pieces that follow from their sizes alone, and are merged in source
order: they are the same for any number of threads and however a reader cuts its batches.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from fastsoftmax.data.loading.prefetch import OrderedPool, Prefetcher
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError
from fastsoftmax.inference.answers import Answer, Judgement
from fastsoftmax.inference.scorer import Scorer, TrainedWeights
from fastsoftmax.kernels.scoring import JudgedSums, new_judged_sums
from fastsoftmax.labels import Classes
from fastsoftmax.options import available_threads

Item = TypeVar("Item")
Finish = Callable[[np.ndarray], np.ndarray]
# Yields first row and logits of each block of a chunk by NumPy, or raises what is wrong with them.
Plain = Callable[[Chunk], Iterator[tuple[int, np.ndarray]]]
Work = Callable[[Iterable[Chunk]], Generator[Item, None, None]]

MOST_READERS = 8
PAGES_BYTES = 3 * 10**8  # of columns that are read side by side, by all readers together
ANSWER_BYTES = 2**22  # of a row's features and answers, times the rows that are handed on together
WAITING_BYTES = 2**26  # of answers of one piece that wait for those before them
SUMMED_ROWS = 2**17  # at least, of the pieces whose sums are merged


class Bulk:
    """A model's weights, and how its rows are scored many at a time.

    affine: what features are scaled with, centre and scale, or None. plain: what scores a chunk in
    which the kernels met something that is not finite, and names it.
    """

    def __init__(
        self,
        weights: np.ndarray,
        bias: np.ndarray,
        affine: tuple[np.ndarray, np.ndarray] | None,
        plain: Plain,
        threads: int | None = None,
    ) -> None:
        self._weights, self._plain = TrainedWeights(weights, bias, affine), plain
        self._threads = min(threads or available_threads(), MOST_READERS)
        row_bytes = (self._weights.K + self._weights.d) * weights.itemsize
        self._step = max(ANSWER_BYTES // row_bytes, 64)
        self._waiting = max(WAITING_BYTES // (self._step * self._weights.K * weights.itemsize), 2)

    def probabilities(
        self, source: Source, chunks: Iterator[Chunk] | None = None
    ) -> Generator[Answer, None, None]:
        """Yield the probabilities of all rows in order.

        chunks: those of the source, where they were asked for already; here and below.
        """

        def score(scorer: Scorer, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
            out, best = self._room(chunk), np.empty(chunk.rows, np.int64)
            if scorer.probabilities(out, best, chunk.parts):
                return out, best
            for start, z in self._plain(chunk):
                out[start : start + len(z)] = _softmax(z)
            return out, None

        return self._answers(source, score, chunks)

    def logits(
        self, source: Source, finish: Finish, chunks: Iterator[Chunk] | None = None
    ) -> Generator[Answer, None, None]:
        """Yield what `finish` makes of the logits of all rows, in order."""

        def score(scorer: Scorer, chunk: Chunk) -> tuple[np.ndarray, None]:
            out = self._room(chunk)
            if not scorer.logits(out, chunk.parts):
                for start, z in self._plain(chunk):
                    out[start : start + len(z)] = z
            return finish(out), None

        return self._answers(source, score, chunks)

    def judged(
        self, source: Source, judgement: Judgement, chunks: Iterator[Chunk] | None = None
    ) -> Generator[JudgedSums, None, None]:
        """Yield the sums over the rows of positive weight, of one run of pieces after the other."""
        units = _units(source.pieces)
        lasts = [unit[-1] for unit in units]

        def work(chunks: Iterable[Chunk]) -> Generator[JudgedSums, None, None]:
            scorer, sums = Scorer(self._weights), None
            for chunk in chunks:
                if sums is None:
                    sums = new_judged_sums(
                        self._weights.K, judgement.bins, tabulate=judgement.tabulate
                    )
                if not scorer.judge(sums, judgement, chunk):
                    self._refuse(chunk)
                if _ends(chunk, source.pieces, lasts):
                    yield sums
                    sums = None
            if sums is not None:
                yield sums

        return self._run(source, judgement.classes, work, units, 2, chunks)

    def _room(self, chunk: Chunk) -> np.ndarray:
        return np.empty((chunk.rows, self._weights.K), self._weights.dtype)

    def _refuse(self, chunk: Chunk) -> None:
        for _ in self._plain(chunk):
            pass
        raise DataError(
            f"the features are so large that the logits do not fit {self._weights.dtype}. Check"
            " them, or scale them before training."
        )

    def _answers(
        self,
        source: Source,
        score: Callable[[Scorer, Chunk], tuple[np.ndarray, np.ndarray | None]],
        chunks: Iterator[Chunk] | None,
    ) -> Generator[Answer, None, None]:
        def work(chunks: Iterable[Chunk]) -> Generator[Answer, None, None]:
            scorer = Scorer(self._weights)
            for chunk in chunks:
                for part in _cut(chunk, self._step):
                    values, best = score(scorer, part)
                    yield Answer(values, part.piece, part.start, best, part.kept, part.dropped)

        units = [[piece] for piece, rows in enumerate(source.pieces or ()) if rows]
        return self._run(source, None, work, units, self._waiting, chunks)

    def _run(
        self,
        source: Source,
        classes: Classes | None,
        work: Work[Item],
        units: Sequence[Sequence[int]],
        waiting: int,
        chunks: Iterator[Chunk] | None,
    ) -> Generator[Item, None, None]:
        """Yield what `work` makes of all chunks, unit after unit."""
        if chunks is not None or source.in_memory or len(units) < 2:
            chunks = source.chunks(classes) if chunks is None else chunks
            return work(chunks if source.in_memory else _ahead(chunks))
        # Each reads as one alone would. With a part of that memory two readers of 64 columns joined
        # them through a file, and took twice as long as one.
        affordable = PAGES_BYTES // max(source.reading_bytes, 1)
        readers = max(min(self._threads, affordable), 1)

        def of_jobs(jobs: Iterator[int]) -> Generator[Item, None, None]:
            pieces = (piece for job in jobs for piece in units[job])
            return work(source.chunks(classes, pieces))

        return OrderedPool(of_jobs, range(len(units)), readers, waiting).items()


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _ahead(chunks: Iterator[Chunk]) -> Generator[Chunk, None, None]:
    """Yield the chunks, decoded by a thread of its own."""
    reader = Prefetcher((chunk for chunk in chunks), threading.Event())
    try:
        yield from reader.items()
    finally:
        reader.stop()


def _cut(chunk: Chunk, step: int) -> Iterator[Chunk]:
    """Yield the chunk in parts of at most `step` rows, without their labels and weights."""
    for first in range(0, chunk.rows, step):
        span = slice(first, min(first + step, chunk.rows))
        yield Chunk(
            tuple(part[span] for part in chunk.parts),
            None,
            None,
            chunk.piece,
            chunk.start + first,
            None if chunk.kept is None else chunk.kept.slice(first, span.stop - first),
            dropped=None if chunk.dropped is None else chunk.dropped[span],
        )


def _units(pieces: Sequence[int] | None) -> list[list[int]]:
    """Return runs of pieces, of SUMMED_ROWS rows or more each; those without rows left out."""
    units: list[list[int]] = []
    rows = SUMMED_ROWS
    for piece, count in enumerate(pieces or ()):
        if count and rows >= SUMMED_ROWS:
            units.append([])
            rows = 0
        if count:
            units[-1].append(piece)
            rows += count
    return units


def _ends(chunk: Chunk, pieces: Sequence[int] | None, lasts: Sequence[int]) -> bool:
    """Return whether the chunk is the last one of a unit, whose last pieces these are."""
    if pieces is None or chunk.start + chunk.rows != pieces[chunk.piece]:
        return False
    at = bisect_left(lasts, chunk.piece)
    return at < len(lasts) and lasts[at] == chunk.piece

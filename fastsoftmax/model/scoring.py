"""The only place where a model meets rows: classes and probabilities of them, streaming."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fastsoftmax.data.parts import Dense
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.inference.answers import Answer, is_worth, is_worth_for_sparse
from fastsoftmax.model.logits import logits_of
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.model.sparse_logits import later, sparse_part

if TYPE_CHECKING:
    from fastsoftmax.data.parts import Part
    from fastsoftmax.data.source import Chunk, Source
    from fastsoftmax.inference.bulk import Bulk
    from fastsoftmax.labels import Classes


# Bytes of features that are kept of a reader until it is known to be long.
PEEKED_BYTES = 2**26

Finish = Callable[[np.ndarray], np.ndarray]
# Yields first row and logits of each block of parts, whose rows it can place.
Blocks = Callable[["tuple[Part, ...]", Callable[[int], str]], Iterator[tuple[int, np.ndarray]]]


@dataclass(frozen=True)
class Scores:
    """The logits (rows, K), in the model's dtype, of the rows of `chunk` from row `start`."""

    chunk: Chunk
    start: int
    logits: np.ndarray

    @property
    def span(self) -> slice:
        """The rows of the chunk that the logits are of."""
        return slice(self.start, self.start + len(self.logits))

    def answer(self, finish: Finish) -> Answer:
        """Return what `finish` makes of the logits, with what is handed on beside them."""
        kept, dropped = self.chunk.kept, self.chunk.dropped
        return Answer(
            finish(self.logits),
            self.chunk.piece,
            self.chunk.start + self.start,
            kept=None if kept is None else kept.slice(self.start, len(self.logits)),
            dropped=None if dropped is None else dropped[self.span],
        )


def decision(model: Parameters, data: Any) -> np.ndarray:
    """Return the logits (n, K) of the rows of `data`."""
    return _collect(model, data, lambda z: z)


def predict(model: Parameters, data: Any) -> np.ndarray:
    """Return the most probable class (n,) of each row; of equal ones the first."""
    return _collect(model, data, classes_of(model))


def probabilities(model: Parameters, data: Any) -> np.ndarray:
    """Return the probabilities (n, K) of the rows of `data`."""
    return _collect(model, data, softmax)


def log_probabilities(model: Parameters, data: Any) -> np.ndarray:
    """Return the logarithms of the probabilities (n, K)."""
    return _collect(model, data, log_softmax)


def classes_of(model: Parameters) -> Finish:
    """Return what makes of logits the most probable classes."""
    classes = model.classes.array()
    return lambda z: classes[z.argmax(axis=1)]


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Return log(softmax(z))."""
    return z - log_sum_exp(z)[:, None]


def softmax(z: np.ndarray) -> np.ndarray:
    """Return exp(z) / sum(exp(z)) along the rows of z (n, K)."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


def log_sum_exp(z: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(z))) along the rows of z (n, K)."""
    largest = z.max(axis=1)
    return largest + np.log(np.exp(z - largest[:, None]).sum(axis=1))


def scored(
    model: Parameters,
    source: Source,
    classes: Classes | None = None,
    chunks: Iterable[Chunk] | None = None,
) -> Iterator[Scores]:
    """Yield the logits of all rows of `source` in order, a bounded block at a time.

    `classes` are those to encode the labels against; None leaves labels and weights out. chunks:
    those of the source, where they were asked for already.
    """
    blocks_of = _blocks_of(model, source)
    for chunk in source.chunks(classes) if chunks is None else chunks:

        def place(row: int, chunk: Chunk = chunk) -> str:
            return source.place(chunk.piece, chunk.start + row)

        for start, logits in blocks_of(chunk.parts, place):
            yield Scores(chunk, start, logits)


def _blocks_of(model: Parameters, source: Source) -> Blocks:
    """Return what yields the logits of rows: by kernels, where they are sparse and it pays."""
    numpy = partial(logits_of, model)
    if source.nonzeros is None:
        return numpy
    (K, d), rows = model.weights.shape, source.rows
    pays = are_loaded = model.has_texts  # where texts are read, kernels are there
    if rows is not None:
        pays = is_worth_for_sparse(rows, K, d, source.nonzeros, are_loaded)
    if not pays:
        return numpy
    from fastsoftmax.inference.sparse_scorer import SparseScorer

    scaling = model.scaling
    affine = None if scaling is None else (scaling.centre, scaling.scale)
    scorer = SparseScorer(model.weights, model.bias, affine)

    def by_kernels(
        parts: tuple[Part, ...], place: Callable[[int], str]
    ) -> Iterator[tuple[int, np.ndarray]]:
        for start, z in scorer.blocks(parts):
            if np.isfinite(z).all():
                yield start, z
                continue
            some = tuple(part[start : start + len(z)] for part in parts)
            for first, again in logits_of(model, some, partial(later, place, start)):
                yield start + first, again

    return by_kernels


def peek(
    model: Parameters, source: Source, classes: Classes | None = None
) -> tuple[bool, Iterator[Chunk] | None]:
    """Return whether the rows are so many that the kernels score them sooner than NumPy.

    The chunks come with it where nobody knows how many rows there are before they are read.
    """
    if source.nonzeros is not None:  # NumPy takes a row's features alone
        return False, None
    if source.rows is not None:
        return is_worth(source.rows, *model.weights.shape), None
    chunks = iter(source.chunks(classes))
    held: deque[Chunk] = deque()
    rows = size = 0
    for chunk in chunks:
        held.append(chunk)
        rows += chunk.rows
        size += sum(part.nbytes for part in chunk.parts)
        if size > PEEKED_BYTES or is_worth(rows, *model.weights.shape):
            return True, _rest(held, chunks)
    return False, _rest(held, chunks)


def _rest(held: deque[Chunk], chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    while held:
        yield held.popleft()
    yield from chunks


def in_bulk(model: Parameters, source: Source) -> Bulk:
    """Return what scores the rows of `source` by the kernels, which are loaded for it."""
    from fastsoftmax.inference.bulk import Bulk

    def plain(chunk: Chunk) -> Iterator[tuple[int, np.ndarray]]:
        return logits_of(
            model, chunk.parts, lambda row: source.place(chunk.piece, chunk.start + row)
        )

    scaling = model.scaling
    affine = None if scaling is None else (scaling.centre, scaling.scale)
    return Bulk(model.weights, model.bias, affine, plain)


def answered(
    model: Parameters, source: Source, finish: Finish, some: Iterator[Chunk] | None = None
) -> Iterator[Answer]:
    """Yield what `finish` makes of the logits of all rows of `source`, in order.

    some: chunks of the source, where only these are asked for.
    """
    is_large, chunks = peek(model, source)
    chunks = some or chunks
    if not is_large:
        return (scores.answer(finish) for scores in scored(model, source, chunks=chunks))
    bulk = in_bulk(model, source)
    if finish is softmax:
        return bulk.probabilities(source, chunks)
    return bulk.logits(source, finish, chunks)


def _collect(model: Parameters, data: Any, finish: Finish) -> np.ndarray:
    """Return what `finish` makes of the logits of all rows."""
    matrix = _as_matrix(data)
    if matrix is not None and model.is_sparse:
        part = sparse_part(model, matrix)
        blocks = logits_of(model, (part,), lambda row: f"row {row}")
        return stack((finish(z) for _, z in blocks), part.rows)
    if matrix is not None:
        _check_matrix(matrix, model)
    if matrix is not None and not is_worth(len(matrix), *model.weights.shape):
        blocks = logits_of(model, (Dense(matrix),), lambda row: f"row {row}")
        return stack((finish(z) for _, z in blocks), len(matrix))
    # Opening a Source costs the import of pyarrow, which a matrix does not need.
    from fastsoftmax.data.open import open_source
    from fastsoftmax.data.preprocessing import NullPolicy

    source = open_source(
        data if matrix is None else matrix,
        like=model.columns,
        like_width=model.n_features,
        null_policy=NullPolicy(model.nulls),
    )
    try:
        answers = answered(model, source, finish)
        return stack((without_dropped(answer, source) for answer in answers), source.rows)
    finally:
        source.close()


def without_dropped(answer: Answer, source: Source) -> np.ndarray:
    """Return answers of which those of dropped rows are NaN; classes cannot be."""
    block, dropped = answer.values, answer.dropped
    if dropped is None or not dropped.any():
        return block
    if block.dtype.kind != "f" or block.ndim == 1:
        row = answer.start + int(dropped.argmax())
        raise DataError(
            f"{source.place(answer.piece, row)}: a feature is null, and"
            " the model drops such rows: leave them out, or use predict_proba, which gives NaN."
        )
    block[dropped] = np.nan
    return block


def stack(blocks: Iterable[np.ndarray], rows: int | None) -> np.ndarray:
    """Return the blocks one below the other; where `rows` is known, without holding them twice."""
    if rows is None:
        return np.concatenate(list(blocks))
    whole, filled = None, 0
    for block in blocks:
        if whole is None:
            whole = np.empty((rows, *block.shape[1:]), block.dtype)
        whole[filled : filled + len(block)] = block
        filled += len(block)
    if whole is None or filled != rows:
        raise DataError(f"the data held {filled} rows where {rows} were announced.")
    return whole


def _as_matrix(data: Any) -> np.ndarray | None:
    """Return data that are an array, or nested lists of numbers, as an array; None for others."""
    if isinstance(data, np.ndarray):
        return data if isinstance(data, np.ma.MaskedArray) else np.asarray(data)
    is_rows = isinstance(data, list | tuple) and len(data) > 0
    if is_rows and not _names_or_holds_rows(data[0]):
        try:
            return np.asarray(data)
        except (ValueError, TypeError, OverflowError):
            raise DataError("the rows given are not all of the same length.") from None
    return None


def _names_or_holds_rows(item: Any) -> bool:
    """Return whether an item of a list names a file, or is a batch of rows of its own."""
    is_batch = hasattr(item, "__arrow_c_array__") or hasattr(item, "__arrow_c_stream__")
    return isinstance(item, str | os.PathLike) or is_batch


def _check_matrix(matrix: np.ndarray, model: Parameters) -> None:
    if isinstance(matrix, np.ma.MaskedArray):
        raise DataError("a masked array holds values that are not there; fill or drop them.")
    if matrix.ndim != 2:
        raise DataError(
            f"the features must be a matrix (rows, features), got the shape {matrix.shape}; "
            "a single row x is x[None, :]."
        )
    if matrix.shape[1] != model.n_features:
        raise DataError(
            f"the model has {model.n_features} features, the data have {matrix.shape[1]}."
        )
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"the features must be numbers, got an array of {matrix.dtype}.")


def write_predictions(
    model: Parameters,
    source: Source,
    path: str | os.PathLike[str],
    *,
    proba: bool = False,
    top_n: int | None = None,
    format: str | None = None,  # noqa: A002
    pipe: BinaryIO | None = None,
    answers: Iterable[Answer] | None = None,
) -> int:
    """Write a prediction for each row of `source` to a file, or to a pipe; return the rows.

    A file in which anything is missing never stands at `path`. answers: probabilities of the rows
    that are written, where these are not all, or made elsewhere. The others are those of
    `open_sink`.
    """
    from fastsoftmax.data.formats.sink import open_sink

    how: dict[str, Any] = {"proba": proba, "top_n": top_n, "format": format, "pipe": pipe}
    with open_sink(path, model.classes, **how) as sink:
        for answer in answered(model, source, softmax) if answers is None else answers:
            sink.append(answer.values, answer.kept, answer.dropped, answer.best)
    return sink.rows

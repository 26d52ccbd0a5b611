"""The Source interface and the Chunk: the one shape in which rows reach the rest of the house."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.data.in_use import InUse
from fastsoftmax.data.manifest import Entries
from fastsoftmax.data.mixing import Segments
from fastsoftmax.data.parts import CopyRows, Part
from fastsoftmax.data.vocabulary import Vocabulary
from fastsoftmax.data.weight_unit import exponent_of, in_unit
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes

if TYPE_CHECKING:  # a model knows its columns without the cost of loading pyarrow
    import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One named feature column: a scalar (`width` None) or a vector of `width` numbers a row.

    categories: the values of a column each of which is a feature, 1 in the rows that have it.
    fill: what is put in the place of nulls, a number for each of the row's, or None for an error.
    indicator: whether one more feature tells the rows that are null, wholly or in part.
    shape, axes: of a tensor, and the order of its axes where they do not lie in their own; None
    for a list, whose numbers have one order alone.
    sparse: which numbers of rows of which most are 0 are features; None where it is no such column.
    text: of a column of texts, the n-grams that are its features.
    pair: the two columns of lists, indices and values, that such a one is read from, if it is.
    """

    name: str
    width: int | None = None
    categories: Classes | None = None
    fill: tuple[float, ...] | None = None
    indicator: bool = False
    shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    sparse: InUse | None = None
    text: Vocabulary | None = None
    pair: tuple[str, str] | None = None

    @property
    def stored_in(self) -> tuple[str, ...]:
        """The names of the columns of the data that it is read from."""
        return (self.name,) if self.pair is None else self.pair

    @property
    def layout(self) -> str:
        """What a row holds, in words."""
        if self.sparse is not None:
            return f"up to {self.sparse.width:,} numbers, most of them 0"
        if self.text is not None:
            return "a text"
        if self.width is None:
            return "one number"
        if self.shape is None:
            return f"a list of {self.width} numbers"
        order = "" if self.axes is None else f", its axes in the order {list(self.axes)}"
        return f"a tensor of the shape {list(self.shape)}{order}"

    def lies_as(self, other: Column) -> bool:
        """Return whether the numbers of a row are the same ones in the same order.

        A list has no shape: it is what a tensor is whose axes lie in their own order.
        """
        # Categories are sparse where they are many, which the data do not say.
        plain = self.categories is None or other.categories is None
        if plain and (self.sparse is None) != (other.sparse is None):
            return False
        if self.width != other.width or self.axes != other.axes:
            return False
        if (self.text is None) != (other.text is None):
            return False
        return self.shape is None or other.shape is None or self.shape == other.shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features: `age`; `pixels[0]`, `pixels[1]`, ...; `origin=JFK`, ..."""
        if self.sparse is not None and self.sparse.is_hashed:
            names = tuple(f"{self.name}=#{j}" for j in self.sparse.index.tolist())
        elif self.sparse is not None and self.categories is None:
            names = tuple(f"{self.name}[{j}]" for j in self.sparse.index.tolist())
        elif self.text is not None:
            names = tuple(f"{self.name}={ngram}" for ngram in self.text.all_names())
        elif self.categories is not None:
            names = tuple(f"{self.name}={value}" for value in self.categories.values)
        elif self.width is None:
            names = (self.name,)
        else:
            names = tuple(f"{self.name}[{j}]" for j in range(self.width))
        return (*names, f"{self.name} is null") if self.indicator else names

    @property
    def n_features(self) -> int:
        """How many features it makes."""
        if self.sparse is not None:
            return len(self.sparse) + self.indicator
        own = self.width or 1 if self.categories is None else len(self.categories)
        own = own if self.text is None else len(self.text)
        return own + self.indicator


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of one piece, as decoded.

    parts: the features side by side; their widths add up to d. Numbers are of any dtype (bool as
        uint8, decimals as float64) and any strides. NaN and infinities may be there (`gather`
        finds them).
    labels: (rows,) int32 class indices, or None where no target was asked for.
    weights: (rows,) float64, finite and >= 0, as the user gave them, or None.
    piece, start: the piece these rows are of, and the first row's number within it.
    kept: the columns to hand on to the output beside the predictions, or None.
    held: (rows,) bool, the rows that are not trained on, or None for none.
    dropped: (rows,) bool, the rows left out for a null, or None for none; their weight is 0.
    """

    parts: tuple[Part, ...]
    labels: np.ndarray | None
    weights: np.ndarray | None
    piece: int
    start: int
    kept: pa.RecordBatch | None = None
    held: np.ndarray | None = None
    dropped: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """How many rows the chunk holds."""
        return self.parts[0].rows

    def by_row(self, copy: CopyRows) -> Chunk:
        """Return the chunk with each row of a part together in memory, copied where it was not."""
        return replace(self, parts=tuple(part.by_row(copy) for part in self.parts))


@dataclass(frozen=True)
class LabelStats:
    """What one pass over the label and weight columns found.

    Rows that are held out are checked, and then left out of every number here.

    counts: (K,) int64, rows of each class, rows of weight 0 included. segments: where they stand.
    mass: (K,) float64, the sum of the weights of each class (of rows, where there are none).
    positives: (K,) int64, rows of positive weight of each class (all, where none are given).
    exponent: mass is counted in 2^exponent, which is 1 for weights that are neither huge nor tiny.
    """

    classes: Classes
    counts: np.ndarray
    segments: Segments
    mass: np.ndarray
    positives: np.ndarray
    exponent: int = 0

    @property
    def positive(self) -> int:
        """How many rows have a positive weight."""
        return int(self.positives.sum())

    def count_steps(self, factors: np.ndarray | None = None) -> int:
        """Return how many rows take a step, their weights being multiplied by factors (K,)."""
        return self.positive if factors is None else int(self.positives[factors > 0].sum())

    def mean_weight(self, factors: np.ndarray | None = None) -> float:
        """Return the mean of the positive weights, times factors (K,): the unit of training."""
        mass = self.mass if factors is None else self.mass * factors
        return float(mass.sum()) / self.count_steps(factors)


class Source(ABC):
    """Rows of d features in numbered pieces (row groups, record batches, or one whole array).

    Rows are numbered in source order: pieces in turn, rows within them. `pieces` is None for a
    one-pass reader, whose length nobody knows before its end.
    """

    columns: tuple[Column, ...] | None  # None: nameless, matched by position
    n_features: int
    pieces: tuple[int, ...] | None  # rows of each piece
    row_bytes: int  # bytes of one row's features as decoded, in the mean
    drops: bool = False  # whether rows with nulls are left out
    reading_bytes: int = 0  # held by each thread that reads at once, beside its chunks
    index_bytes: int = 0  # held by what lists the pieces of the files that are open
    labelling: tuple[str, ...] = ()  # the label and weight columns, where these are columns
    in_memory: bool = False  # reading them costs next to nothing
    resident: bool  # they are rows in memory already, used where they lie, at no cost to the budget
    one_pass: bool = False  # a reader that can be read once: no scan, one epoch
    weight_exponent: int | None = 0  # of the unit of chunks' weights; None: of the first ones' size
    columns_are_nameless: bool = False  # those of a sparse matrix, though they are told as one
    nonzeros: float | None = None  # of a row in the mean, where features are sparse; None: dense
    label_kind: str | None = None  # of the classes that labels of their type are, where any are

    @property
    def rows(self) -> int | None:
        """How many rows there are; None for a one-pass reader."""
        return None if self.pieces is None else sum(self.pieces)

    @property
    def decoded_bytes(self) -> int | None:
        """The bytes of all rows' features as decoded; None for a one-pass reader."""
        return None if self.rows is None else self.rows * self.row_bytes

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The d names of the features, or None where the data have none."""
        if self.columns is None:
            return None
        return tuple(name for column in self.columns for name in column.feature_names)

    def room(self, memory: int) -> int:
        """Return how many of `memory` bytes are left for rows, half of them at least."""
        return max(memory - self.index_bytes, memory // 2)

    def allot(self, memory: int, threads: int = 1) -> None:
        """Let each thread that reads take a part of so many bytes; rows in memory take none.

        threads: that decode columns side by side, where there is no other that reads.
        """

    def learn(self, held_out: Callable[[int, int], np.ndarray] | None = None) -> None:
        """Read the feature columns once, where something must be known of them before training:
        categories, means, which hold nulls. Rows that are `held_out` count for none of it.
        """

    @property
    def has_to_learn(self) -> bool:
        """Whether something must be known of the columns before rows are read."""
        return False

    def surveyed(
        self, pieces: Iterable[int], held_out: Callable[[int, int], np.ndarray] | None = None
    ) -> Any:
        """Return what some pieces show of the columns; what others show is added with `+`."""

    def take_survey(self, survey: Any) -> None:
        """Have learnt what a survey of all pieces shows; see `learn`."""

    def cut(self, most: int) -> None:
        """Have pieces of at most so many rows from now on, where that costs nothing."""

    def treated_by_place(self) -> dict[tuple[int, int], dict[str, int]]:
        """Return what `treated` counts, for each chunk that was read: its piece and first row."""
        return {}

    def take_treated(self, places: dict[tuple[int, int], dict[str, int]]) -> None:
        """Count what was done to chunks that were read elsewhere."""

    def treated(self) -> dict[str, int]:
        """Return how many nulls were filled, categories unknown and rows dropped so far: what was
        done, and to which column, by number; empty where nothing was."""
        return {}

    def leave_out(self, entries: Entries) -> int:
        """Read no pieces that a ledger has from now on; return how many rows these hold.

        Raises DataError where a file lacks what the ledger has of it.
        """
        return 0

    @abstractmethod
    def scan_labels(
        self,
        classes: Classes | None = None,
        held_out: Callable[[int, int], np.ndarray] | None = None,
    ) -> LabelStats:
        """Read the label and weight columns once: classes (found, or checked against those given),
        their counts, the sum of weights. Raises DataError on a null, unknown or unusable label
        or weight, naming the place. `held_out(start, count)` gives the mask (count,) of the rows,
        numbered in source order, that are not trained on.
        """

    @abstractmethod
    def count_labels(
        self,
        pieces: Iterable[int],
        classes: Classes | None = None,
        held_out: Callable[[int, int], np.ndarray] | None = None,
    ) -> Any:
        """Return the sums over the labels and weights of some pieces, from which LabelStats follow;
        those of others are added with `+`. See `scan_labels`.
        """

    @abstractmethod
    def chunks(
        self, classes: Classes | None, order: Iterable[int] | None = None
    ) -> Generator[Chunk, None, None]:
        """Yield the rows of the pieces in `order` (default: all, in source order) as Chunks.

        Each piece is asked for when the one before is done. Several threads may each read some.

        Labels are encoded against `classes`; None leaves labels and weights out.
        """

    def whole(self, classes: Classes) -> Chunk | None:
        """Return all rows as one chunk of one piece, where they lie so in memory; else None."""
        return None

    def counted(self, weights: np.ndarray | None) -> np.ndarray | None:
        """Return weights (n,) of rows in the unit that weights have from here on."""
        if weights is None:
            return None
        if self.weight_exponent is None and weights.any():
            # Whichever chunk comes first: a power of two changes none of the digits.
            self.weight_exponent = exponent_of(float(weights.max()))
        return in_unit(weights, self.weight_exponent or 0)

    @abstractmethod
    def place(self, piece: int, row: int) -> str:
        """Say where row `row` of piece `piece` stands, for a message:
        `train/part-07.parquet, row group 3, row 1204`.
        """

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self.pieces or (), initial=0))

    def number_anew(self) -> None:
        """Take note that the pieces are others."""
        self.__dict__.pop("_starts", None)

    def number(self, piece: int, row: int) -> int:
        """Return the number in source order of row `row` of a piece."""
        return self._starts[piece] + row

    def place_of(self, number: int) -> str:
        """Say where the row of this number in source order stands."""
        filled = range(len(self.pieces or (0,)))
        piece = bisect_right(filled, number, key=lambda p: self._starts[p]) - 1
        return self.place(piece, number - self._starts[piece])

    def whereabouts(self, piece: int) -> tuple[str | None, int | None]:
        """Return the file that a piece stands in, and its number there; None of none."""
        return None, None

    @abstractmethod
    def fingerprint(self) -> list[dict[str, Any]]:
        """Describe the data for the model's record: names, rows and digests of files and of their
        pieces; no path, clock or machine. Empty for data that are in memory.
        """

    def modified(self) -> list[int]:
        """Return when each file was last changed, in ns since 1970: no part of the description."""
        return []

    def close(self) -> None:
        """Release what the source holds open; a no-op for data in memory."""

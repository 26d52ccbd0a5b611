"""The only place that says what a feature column holds, and which columns are in use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fastsoftmax.data.layouts import decoded_dtype, is_plain, is_vector, item_type
from fastsoftmax.data.packed import Packing
from fastsoftmax.data.source import Column
from fastsoftmax.data.values import is_encoded
from fastsoftmax.facts import dataclass

if TYPE_CHECKING:
    from fastsoftmax.data.text import TextEncoder

NOTE = b"fastsoftmax.note"  # in a field's metadata: where a value stands that made the column text
PARTITION = {b"fastsoftmax.partition": b"1"}  # metadata of a column that a folder's name tells


# Of a sparse row: a number and its feature, and where the row ends.
SPARSE_BYTES, ROW_BYTES = 8, 8
TEXT_NUMBERS = 128  # in a row of texts, until it is known


@dataclass(frozen=True)
class Feature:
    """A feature column and the Arrow type that it has in every file.

    stored: the type that the data have, where it is another: none at all, where all is null.
    numbers: of a row of texts, in the mean, as far as that is known.
    """

    column: Column
    kind: pa.DataType
    stored: pa.DataType | None = None
    numbers: int = TEXT_NUMBERS

    @property
    def width(self) -> int:
        """How many numbers a row holds."""
        return 1 if self.column.width is None else self.column.width

    @property
    def is_sparse(self) -> bool:
        """Whether most of its numbers are 0, and left out."""
        return self.column.text is not None or self.column.sparse is not None

    @property
    def nonzeros(self) -> float:
        """How many of a row's numbers are met by who leaves zeros out, in the mean."""
        if self.column.text is not None:
            return float(self.numbers + self.column.indicator)
        if self.column.sparse is not None:
            return self.column.sparse.mean + self.column.indicator
        return float(self.width if self.column.categories is None else 1) + self.column.indicator

    @property
    def dtype(self) -> np.dtype:
        """What its numbers, or its codes, are decoded to."""
        if self.is_sparse:
            return np.dtype(np.float32)
        if self.column.categories is not None:
            return np.dtype(np.int32)
        stored = decoded_dtype(item_type(self.kind))
        filled = self.column.fill is not None and not all(map(float.is_integer, self.column.fill))
        return np.dtype(np.float64) if filled and stored.kind in "ui" else stored

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as decoded."""
        if self.is_sparse:
            return int(SPARSE_BYTES * self.nonzeros) + ROW_BYTES
        return self.width * self.dtype.itemsize + self.column.indicator

    @cached_property
    def encoder(self) -> TextEncoder:
        """What turns its texts into features."""
        from fastsoftmax.data.text import TextEncoder  # which loads kernels

        assert self.column.text is not None
        return TextEncoder(self.column.text)


# Held beside each number while it is decoded: wide integers, and levels and room to grow in lists.
NUMBER_BYTES, ITEM_BYTES = 4, 14


@dataclass(frozen=True)
class Layout:
    """The columns in use: features in their order, label, weight, and those handed on.

    drops: whether a row with a null among its features is left out. packing: of the one column that
    all features stand in, if they do, and `chosen` where; see packed.py.
    """

    features: tuple[Feature, ...]
    target: str | None
    weight: str | None
    keep: tuple[str, ...]
    drops: bool = False
    packing: Packing | None = None

    @property
    def chosen(self) -> np.ndarray | None:
        """Where the features stand in a packed row; None for all in order."""
        if self.packing is None:
            return None
        return self.packing.positions(tuple(feature.column for feature in self.features))

    @property
    def n_features(self) -> int:
        """How many features a row has."""
        return sum(feature.column.n_features for feature in self.features)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's features as decoded."""
        return sum(feature.row_bytes for feature in self.features)

    @property
    def nonzeros(self) -> float | None:
        """How many numbers of a row are not 0, in the mean; None where none of them need be."""
        if not any(feature.is_sparse for feature in self.features):
            return None
        return sum(feature.nonzeros for feature in self.features)

    @property
    def decoding_bytes(self) -> int:
        """Bytes that one row's features take while they are decoded."""
        if self.packing is not None:
            return self.row_bytes + self.packing.kind.byte_width
        vectors = [f for f in self.features if f.column.width is not None]
        numbers = sum(feature.width for feature in vectors)
        alone = len(self.features) - len(vectors)
        return self.row_bytes + NUMBER_BYTES * alone + ITEM_BYTES * numbers

    @cached_property
    def copies_nothing(self) -> bool:
        """Whether decoding only points into Arrow's memory, whatever the number of rows."""
        if self.packing is not None:
            return self.packing.scale is None and self.chosen is None
        untouched = all(
            not f.is_sparse
            and is_plain(item_type(f.kind))
            and f.column.fill is None
            and f.column.categories is None
            for f in self.features
        )
        return untouched and not any(
            a.kind == b.kind and not is_vector(a.kind)
            for a, b in zip(self.features, self.features[1:], strict=False)
        )

    @cached_property
    def encoded(self) -> dict[str, pa.DataType]:
        """The feature columns whose values are to be made plain, and the types to be decoded."""
        found = {f.column.name: f.kind for f in self.features if is_encoded(f.stored or f.kind)}
        return {} if self.packing is not None else found

    @property
    def labelling(self) -> tuple[str, ...]:
        """The names of the label and weight columns that there are."""
        return tuple(name for name in (self.target, self.weight) if name is not None)

    def names(self, labelled: bool) -> tuple[str, ...]:
        """Return the names of the columns to read, each once."""
        features = [name for feature in self.features for name in feature.column.stored_in]
        if self.packing is not None:
            features = [self.packing.name]
        return tuple(dict.fromkeys((*features, *(self.labelling if labelled else ()), *self.keep)))


def is_partition(field: pa.Field) -> bool:
    """Return whether a column stands in the names of folders, not in the files."""
    return PARTITION.items() <= (field.metadata or {}).items()

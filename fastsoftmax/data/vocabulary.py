"""The only place that says what a text's features are: a recipe for n-grams, and those in use."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from fastsoftmax.facts import dataclass

# Versions of what n-grams and their hashes are; those of kernels/hashing.py and characters.py.
HASHING, UNICODE = 1, "14.0"
NORMS: dict[str | None, int] = {None: 0, "l1": 1, "l2": 2}


@dataclass(frozen=True)
class Recipe:
    """How a text becomes numbers.

    words, characters: the least and the largest n of n-grams of each; None for none of these.
    bits: of the index that an n-gram's hash is; None where n-grams are known by name.
    lower: whether case is of no account. normalize: a form of Unicode, or None. norm: of a row. tf:
    what counts become: count, log or binary.
    """

    words: tuple[int, int] | None = (1, 2)
    characters: tuple[int, int] | None = None
    bits: int | None = None
    lower: bool = True
    normalize: str | None = None
    norm: str | None = "l2"
    tf: str = "count"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The least and the largest n, of words and of characters; 0 for none."""
        return (*(self.words or (0, 0)), *(self.characters or (0, 0)))


NGRAMS = Recipe()


@dataclass(frozen=True)
class TextColumns:
    """Which columns are texts, by name, and how they become numbers."""

    names: tuple[str, ...] = ()
    recipe: Recipe = NGRAMS


NO_TEXTS = TextColumns()


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The n-grams that are features, those of most rows first.

    names, offsets: feature j's name is names[offsets[j] : offsets[j + 1]], UTF-8; or, of hashed
    ones, indices (n,) int64 of their hashes, which have no names.
    collisions: of hashed ones, while a model is trained: the share of what was counted that has the
    index of another n-gram, seen before it.
    """

    recipe: Recipe
    names: np.ndarray | None = None
    offsets: np.ndarray | None = None
    indices: np.ndarray | None = None
    collisions: float | None = None

    def __len__(self) -> int:
        if self.indices is not None:
            return len(self.indices)
        assert self.offsets is not None
        return len(self.offsets) - 1

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, Vocabulary) or self.recipe != other.recipe:
            return False
        pairs = ((getattr(self, key), getattr(other, key)) for key in ARRAYS)
        return all(
            a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs
        )

    def __hash__(self) -> int:
        return hash((self.recipe, len(self)))

    def checksum(self) -> int:
        """Return a checksum of the features."""
        held = self.indices if self.names is None else self.names
        assert held is not None
        return zlib.crc32(held.tobytes(), len(self))

    def all_names(self) -> tuple[str, ...]:
        """Return what the features are called."""
        return tuple(map(self.name, range(len(self))))

    def name(self, feature: int) -> str:
        """Return what a feature is called: its words, or ~ and its characters; or #index."""
        if self.indices is not None:
            return f"#{self.indices[feature]}"
        assert self.names is not None
        assert self.offsets is not None
        start, stop = self.offsets[feature : feature + 2]
        return bytes(self.names[start:stop]).decode()


def empty_vocabulary(recipe: Recipe) -> Vocabulary:
    """Return one without features, until they are learnt."""
    if recipe.bits is not None:
        return Vocabulary(recipe, indices=np.zeros(0, np.int64))
    return Vocabulary(recipe, np.zeros(0, np.uint8), np.zeros(1, np.int64))


ARRAYS = ("names", "offsets", "indices")

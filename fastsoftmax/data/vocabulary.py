"""The only place that says what a text's features are: a recipe for n-grams, and those in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_WORDS, MOST_CHARACTERS = 8, 16  # that an n-gram may have
LEAST_BITS, MOST_BITS = 8, 28
NORMS: dict[str | None, int] = {None: 0, "l1": 1, "l2": 2}
TERMS = ("count", "log", "binary")
FORMS = ("NFC", "NFD", "NFKC", "NFKD")
OF_CHARACTERS = "~"  # what names of n-grams of characters begin with: no token does


@dataclass(frozen=True)
class Recipe:
    """How a text becomes numbers.

    words, characters: the least and the largest n of n-grams of each; None for none of these.
    bits: of the index that an n-gram's hash is; None where n-grams are known by name.
    lower: whether case is of no account. normalize: one of FORMS, or None. norm: of a row. tf: what
    counts become.
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


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The n-grams that are features, those of most rows first.

    names, offsets: feature j's name is names[offsets[j] : offsets[j + 1]], UTF-8; or, of hashed
    ones, indices (n,) int64 of their hashes, which have no names.
    """

    recipe: Recipe
    names: np.ndarray | None = None
    offsets: np.ndarray | None = None
    indices: np.ndarray | None = None

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

    __hash__ = None  # type: ignore[assignment]

    def name(self, feature: int) -> str:
        """Return what a feature is called: its words, or ~ and its characters; or #index."""
        if self.indices is not None:
            return f"#{self.indices[feature]}"
        assert self.names is not None
        assert self.offsets is not None
        start, stop = self.offsets[feature : feature + 2]
        return bytes(self.names[start:stop]).decode()


ARRAYS = ("names", "offsets", "indices")

"""The only place that knows how columns of texts lie in a model file: recipes and vocabularies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from reprlib import repr as brief  # what a damaged file says is of any length
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.data.vocabulary import ARRAYS, HASHING, UNICODE, Recipe, Vocabulary
from fastsoftmax.errors import OptionError
from fastsoftmax.model.strict_json import MalformedError, object_of, require
from fastsoftmax.options import Texts

VERSIONS = {"hashing": HASHING, "unicode": UNICODE}
RECIPE = {field.name for field in fields(Recipe)}
DTYPES = {"names": np.uint8, "offsets": np.int64, "indices": np.int64}


def describe_text(text: Vocabulary) -> dict[str, Any]:
    """Return what JSON tells of a column of texts."""
    return {**asdict(text.recipe), **VERSIONS}


def text_tensors(columns: Iterable[Column]) -> dict[str, np.ndarray]:
    """Return the vocabularies of those columns that are texts, by the columns' numbers."""
    found = {}
    for number, column in enumerate(columns):
        for key in ARRAYS if column.text is not None else ():
            array = getattr(column.text, key)
            if array is not None:
                found[f"text.{number}.{key}"] = array
    return found


def read_text(
    told: dict[str, Any], tensors: dict[str, np.ndarray], number: int
) -> Vocabulary | None:
    """Return the vocabulary of column `number`, if it is one of texts.

    Its tensors are taken out of `tensors`.
    """
    if told.get("text") is None:
        return None
    said = object_of(told["text"], RECIPE | set(VERSIONS), "a column of texts is malformed")
    for key, ours in VERSIONS.items():
        theirs = said.pop(key)
        require(
            theirs == ours,
            f"its texts are of version {brief(theirs)} of {key}, and this fastsoftmax has {ours}",
        )
    recipe = _read_recipe(said)
    keys = ("names", "offsets") if recipe.bits is None else ("indices",)
    arrays = {key: tensors.pop(f"text.{number}.{key}", None) for key in keys}
    for key, array in arrays.items():
        fits = array is not None and array.ndim == 1 and array.dtype == DTYPES[key]
        require(fits, "a column of texts has no vocabulary")
    names, offsets, indices = (arrays.get(key) for key in ARRAYS)
    vocabulary = Vocabulary(recipe, names, offsets, indices)
    if recipe.bits is None:
        _check_names(arrays["names"], arrays["offsets"])
    else:
        _check_indices(arrays["indices"], recipe.bits)
    return vocabulary


def _read_recipe(said: dict[str, Any]) -> Recipe:
    sizes: dict[str, Any] = {}
    for key, option in (("words", "ngrams"), ("characters", "chars")):
        value = said.pop(key)
        pair = isinstance(value, list) and len(value) == 2
        require(value is None or pair, "a column of texts is malformed")
        sizes[option] = None if value is None else f"{value[0]}-{value[1]}"
    try:
        texts = Texts(text=("a",), **sizes, **said)
    except (OptionError, TypeError):
        raise MalformedError("a column of texts is malformed") from None
    return Recipe(
        texts.words, texts.characters, texts.bits, texts.lower, texts.normalize, texts.norm,
        texts.tf,
    )  # fmt: skip


def _check_names(names: Any, offsets: Any) -> None:
    """Raise MalformedError where names do not make up the bytes there are, or are no UTF-8."""
    otherwise = "the names of its n-grams are malformed"
    whole = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(names)
    require(bool(whole and (np.diff(offsets) > 0).all()), otherwise)
    # Each begins with a byte that begins a character, so that one look at all of them is enough.
    require(not ((names[offsets[:-1]] & 0xC0) == 0x80).any(), otherwise)
    try:
        names.tobytes().decode()
    except UnicodeDecodeError:
        raise MalformedError(otherwise) from None


def _check_indices(indices: Any, bits: int) -> None:
    fits = len(indices) > 0 and are_distinct(indices)
    fits = fits and indices.min() >= 0 and indices.max() < 1 << bits
    require(bool(fits), "the indices of its n-grams are malformed")


def are_distinct(numbers: np.ndarray) -> bool:
    """Return whether no number is there twice; sorted, which is ten times as fast as np.unique."""
    ordered = np.sort(numbers)
    return not (ordered[1:] == ordered[:-1]).any()

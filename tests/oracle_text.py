"""What n-grams of a text there are, in plain Python, slow and obvious: by names, nothing hashed."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

from tests.characters import ALONE, BETWEEN, MARK, WORD, kind_of


def lower(text: str) -> str:
    """Return the simple lower case, character by character."""
    return "".join(sign.lower()[0] for sign in text)


def runs(text: str) -> list[list[str]]:
    """Return the tokens of a text, in runs that touch each other."""
    found: list[list[str]] = [[]]
    last = BETWEEN
    for sign in text:
        kind = kind_of(ord(sign))
        if kind == MARK and last != BETWEEN:
            found[-1][-1] += sign
            continue
        if kind in (BETWEEN, MARK):
            last = BETWEEN
            found.append([])
            continue
        if kind == WORD and last == WORD:
            found[-1][-1] += sign
        else:
            found[-1].append(sign)
        last = kind
    assert ALONE != WORD
    return [run for run in found if run]


def names(
    text: str,
    words: tuple[int, int] | None = (1, 2),
    characters: tuple[int, int] | None = None,
    is_lower: bool = True,
    normalize: str | None = None,
) -> list[str]:
    """Return the names of all n-grams of a text, in the order in which they begin."""
    text = unicodedata.normalize(normalize, text) if normalize else text
    held = runs(lower(text) if is_lower else text)
    found = []
    if words:
        tokens = [(token, i == 0) for run in held for i, token in enumerate(run)]
        for first in range(len(tokens)):
            for n in range(words[0], words[1] + 1):
                if first + n <= len(tokens):
                    rest = (" " * parted + token for token, parted in tokens[first + 1 : first + n])
                    found.append(tokens[first][0] + "".join(rest))
    for run in held if characters else ():
        assert characters is not None
        padded = f" {''.join(run)} "
        sized = range(characters[0], characters[1] + 1)
        found += [
            "~" + padded[first : first + n]
            for first in range(len(padded))
            for n in sized
            if first + n <= len(padded)
        ]
        if len(padded) < characters[0]:
            found.append("~" + padded)
    return found


def vocabulary(texts: list[list[str]], min_count: int) -> dict[str, int]:
    """Return in how many rows each name is, where these are enough."""
    counts = Counter(name for row in texts for name in set(row))
    return {name: rows for name, rows in counts.items() if rows >= min_count}


def values(found: list[str], known: set[str], tf: str, norm: str | None) -> dict[str, float]:
    """Return the features of a row by name, in order of their first appearance."""
    counts = Counter(name for name in found if name in known)
    weigh = {"count": float, "log": lambda c: 1 + math.log(c), "binary": lambda c: 1.0}[tf]
    row = {name: weigh(count) for name, count in counts.items()}
    size = {
        None: 1.0,
        "l1": sum(map(abs, row.values())),
        "l2": math.sqrt(sum(value**2 for value in row.values())),
    }[norm]
    return {name: value / size for name, value in row.items()}

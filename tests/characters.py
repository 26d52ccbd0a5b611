"""Writes the table of characters in fastsoftmax/kernels/characters.py from Python's own.

python -m tests.characters        under a Python whose unicodedata is of the version said there
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from itertools import groupby
from pathlib import Path

from fastsoftmax.kernels import characters
from fastsoftmax.kernels.characters import ALONE, BETWEEN, CODE_POINTS, DIGITS, MARK, WORD

# Scripts that are written without blanks between words, as the names of their letters begin.
UNSPACED = (
    "CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA",
    "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR",
)  # fmt: skip
JOINERS = (0x200C, 0x200D)


def kind_of(code_point: int) -> int:
    """Return what a character is to tokens, by its category and its name."""
    sign = chr(code_point)
    category, name = unicodedata.category(sign), unicodedata.name(sign, "")
    unspaced = name.startswith(UNSPACED)
    if category[0] == "M" or code_point in JOINERS or (unspaced and category == "Lm"):
        return MARK
    if category == "So" or (unspaced and category[0] == "L"):
        return ALONE
    return WORD if category[0] in "LN" or sign == "_" else BETWEEN


def lower_of(code_point: int) -> int:
    """Return a character's lower case that is one character."""
    lowered = chr(code_point).lower()
    return ord(lowered[0])  # of U+0130 alone it is two: i, and a dot above


def in_digits(value: int) -> str:
    """Return a whole number >= 0 in the digits of the tables."""
    digits = ""
    while value or not digits:
        value, digit = divmod(value, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits


def kinds_text() -> str:
    """Return runs of characters of one kind: the kind's letter, and how many there are."""
    runs = groupby(map(kind_of, range(CODE_POINTS)))
    return "".join("BWMA"[kind] + in_digits(len(list(run))) for kind, run in runs)


def lower_text() -> str:
    """Return runs of characters with a lower case: first, count, step, distance, its sign."""
    pairs = [(c, lower_of(c) - c) for c in range(CODE_POINTS) if lower_of(c) != c]
    runs, at = [], 0
    while at < len(pairs):
        first, distance = pairs[at]
        step = count = 1
        if at + 1 < len(pairs) and pairs[at + 1] in ((first + 1, distance), (first + 2, distance)):
            step = pairs[at + 1][0] - first
        while at + count < len(pairs) and pairs[at + count] == (first + step * count, distance):
            count += 1
        sign = "-" if distance < 0 else "+"
        runs.append(f"{in_digits(first)}.{in_digits(count)}.{step}{sign}{in_digits(abs(distance))}")
        at += count
    return " ".join(runs)


def main() -> None:
    """Write both tables into the module."""
    path = Path(characters.__file__)
    source = path.read_text()
    for name, text in (("_KINDS", kinds_text()), ("_LOWER", lower_text())):
        lines = textwrap.wrap(text, 93, break_on_hyphens=False)
        held = "\n".join(f'    "{line}{" " if name == "_LOWER" else ""}"' for line in lines)
        source = re.sub(rf"{name} = \(\n.*?\n\)\n", f"{name} = (\n{held}\n)\n", source, flags=re.S)
    path.write_text(source)


if __name__ == "__main__":
    main()

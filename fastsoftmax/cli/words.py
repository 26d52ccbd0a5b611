"""The only place that reads several values out of one word of a command line, and writes them so.

Lists are separated by commas. A value is put in double quotes where it holds a comma, a quote or
the end of a line, or begins with a blank; a double quote inside is written twice.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping

# What stands between semicolons, but for those in double quotes, which open where a value begins.
SETTING = re.compile(r'(?:(?:^|(?<=[,;])) *"(?:[^"]|"")*"|[^;])*')


def as_text(word: str) -> str:
    """Return a word as the UTF-8 that it is in, whatever the locale took it to be."""
    return os.fsencode(word).decode("utf-8", "surrogateescape")


def listed(word: str) -> list[str]:
    """Return the values in a word; raise ValueError, with the rule, where its quotes are wrong."""
    try:
        # A reader is given lines: without the two ends, the word is one, whatever is in it.
        rows = list(csv.reader(io.StringIO(as_text(word), ""), skipinitialspace=True, strict=True))
    except csv.Error:
        rows = []
    if len(rows) > 1 or not (rows or not word):
        raise ValueError(
            f"{word!r} is no list: put names with commas, quotes or line breaks in double quotes,"
            " and write a quote inside of them twice"
        )
    return rows[0] if rows else []


def as_list(values: Iterable[str]) -> str:
    """Return the word that `listed` reads as these values."""
    return ",".join(map(_quoted, values))


def assigned(word: str) -> dict[str, str]:
    """Return what each name in a word such as a=b,c=d is to be; raise ValueError for others."""
    pairs = [pair.rpartition("=") for pair in listed(word)]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(f"{word!r} gives no name something: write name=value")
    return {name: value for name, _, value in pairs}


def factors(word: str) -> dict[str, float]:
    """Return the number of each name in a word such as a=2,b=0.5; raise ValueError for others."""
    found: dict[str, float] = {}
    for pair in listed(word):
        name, equals, number = pair.rpartition("=")
        if not equals:
            raise ValueError(f"{pair!r} is no factor of a class: write name=number")
        if name in found:
            raise ValueError(f"{name!r} has two factors: give it one")
        try:
            found[name] = float(number)
        except ValueError:
            raise ValueError(f"{number!r} is not a number") from None
    return found


def split_settings(word: str) -> list[str]:
    """Return what stands between the semicolons that are in no double quotes."""
    found, start = [], 0
    while start <= len(word):
        match = SETTING.match(word, start)
        assert match is not None  # nothing is a match, too
        found.append(match[0])
        start = match.end() + 1
    return found


def as_factors(numbers: Mapping[str, float]) -> str:
    """Return the word that `factors` reads as these numbers."""
    return as_list(f"{name}={number}" for name, number in numbers.items())


def _quoted(value: str) -> str:
    needs_quotes = not value or value[0] in ' "' or any(sign in value for sign in ",\r\n")
    return f'"{value.replace(chr(34), 2 * chr(34))}"' if needs_quotes else value

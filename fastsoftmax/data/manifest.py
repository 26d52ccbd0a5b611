"""The only place that tells which pieces of files a model was trained on already.

A ledger is a list of what `fingerprint` says of files: name, size, rows, sha256 of the footer, and
the digests of their pieces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fastsoftmax.errors import DataError

Entries = Sequence[dict[str, Any]]


def names_of(paths: Sequence[str]) -> list[str]:
    """Return the names by which a ledger knows files, wherever their folders lie.

    A file's own name, with the folders that Hive named; where several have one name, with all
    folders below the one that they share.
    """
    parts = [path.split("/") for path in paths]
    alike = len({part[-1] for part in parts}) < len(parts)
    shared = _count_shared([part[:-1] for part in parts])
    return [
        "/".join(
            [f for i, f in enumerate(part[:-1]) if "=" in f or (alike and i >= shared)] + part[-1:]
        )
        for part in parts
    ]


def merged(before: Entries, now: Entries) -> list[dict[str, Any]]:
    """Return the entries of `before` that tell of pieces which those of `now` do not hold."""
    held = {(entry["name"], digest) for entry in now for digest in entry["pieces"]}
    return [
        entry
        for entry in before
        if any((entry["name"], digest) not in held for digest in entry["pieces"])
    ]


def new_pieces(entries: Entries, paths: Sequence[str], now: Entries) -> list[list[int]]:
    """Return which pieces of each file, by path and entry, no entry of a ledger has.

    Raises DataError where pieces that entries of its name have are no longer in a file.
    """
    known: set[str] = set()
    by_name: defaultdict[str, list[set[str]]] = defaultdict(list)
    for entry in entries:
        known.update(entry["pieces"])
        by_name[entry["name"]].append(set(entry["pieces"]))
    for path, entry in zip(paths, now, strict=True):
        _refuse_changed(path, by_name[entry["name"]], set(entry["pieces"]))
    return [[i for i, d in enumerate(entry["pieces"]) if d not in known] for entry in now]


def _refuse_changed(path: str, known: Sequence[set[str]], digests: set[str]) -> None:
    if known and not any(pieces <= digests for pieces in known):
        gone = min(len(pieces - digests) for pieces in known)
        raise DataError(
            f"{path}: the model was trained on a file of this name, and {gone} of its"
            f" {len(known[-1])} row groups have changed or gone since. If it is to be trained on as"
            " it is now, or is another file, give seen=again."
        )


def _count_shared(folders: Sequence[list[str]]) -> int:
    """Return how many folders all paths begin with."""
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return shared

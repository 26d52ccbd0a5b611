"""The only place that tells files of lines from others: by their names, or where they have none, by
what they begin with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from os import PathLike

import pyarrow as pa

from fastsoftmax.data.formats.csv_lines import CsvLines
from fastsoftmax.data.formats.files import DataFile, opened
from fastsoftmax.data.formats.json_lines import JsonLines
from fastsoftmax.data.formats.lines import CODECS, TextPath
from fastsoftmax.data.formats.partitions import NUMBER
from fastsoftmax.data.formats.spool import STDIN
from fastsoftmax.data.formats.svmlight import ENDINGS, SvmlightLines

COMMAS, TABS = (".csv",), (".tsv", ".tab")
OBJECTS = (".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".zst")
SNIFFED = 2**10  # bytes
MOST_KEPT = 4  # files of lines that need not be parsed again when they are opened again
_kept: OrderedDict[tuple[object, ...], TextPath] = OrderedDict()


def labels_itself(data: object) -> bool:
    """Return whether data are svmlight files, whose lines begin with their labels."""
    paths = data if isinstance(data, list | tuple) and data else [data]
    names = [str(path).lower() for path in paths if isinstance(path, str | PathLike)]
    for ending in PACKED:
        names = [name.removesuffix(ending) for name in names]
    return len(names) == len(paths) and all(name.endswith(ENDINGS) for name in names)


def text_file(path: str, start: bytes, known: Mapping[str, str]) -> DataFile | None:
    """Return a file of lines, whose first bytes are `start`; None where it is none.

    known: of columns what they are, where that is known: NUMBER, or what Arrow calls the type.
    """
    codec = next((codec for magic, codec in CODECS.items() if start.startswith(magic)), None)
    name = path.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    # A number may be of any type, and is one that is told by what the file holds.
    types = {name: pa.type_for_alias(kind) for name, kind in known.items() if kind != NUMBER}
    if name.endswith(OBJECTS) or (path == STDIN and _first_sign(path, codec) == b"{"):
        return _parsed(TextPath(path, JsonLines(types), codec), types)
    if name.endswith((*COMMAS, *TABS)) or path == STDIN:
        tabs = "\t" if name.endswith(TABS) else None
        return _parsed(TextPath(path, CsvLines(types, tabs), codec), types)
    if name.endswith(ENDINGS):
        return TextPath(path, SvmlightLines(), codec)
    return None


def _parsed(file: TextPath, types: Mapping[str, pa.DataType]) -> TextPath:
    """Return a file whose rows are there: those of an earlier opening, if it is still the same."""
    here = (str(file.path), file.size, file.modified)
    same = (key for key, kept in _kept.items() if key[:3] == here and kept.would_have(types))
    key = next(same, (*here, frozenset(types.items())))
    if key not in _kept:
        file.open()
        _kept[key] = file
        if len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return copy(_kept[key])  # of which each may be asked for other types of numbers


def _first_sign(path: str, codec: str | None) -> bytes:
    """Return the first sign of a file that is no blank."""
    with opened(path) as plain:
        file = plain if codec is None else pa.CompressedInputStream(plain, codec)
        return bytes(file.read(SNIFFED)).lstrip()[:1]

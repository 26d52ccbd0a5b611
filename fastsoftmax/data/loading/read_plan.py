"""The only place that decides how rows are read: by how many threads, and where they are kept."""

from __future__ import annotations

import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

from fastsoftmax.data.formats.files import PAGES_SHARE
from fastsoftmax.data.loading.shuffle import ShufflePlan, make_plan
from fastsoftmax.data.mixing import Segments
from fastsoftmax.data.source import Source
from fastsoftmax.errors import OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.files import cache_folder
from fastsoftmax.options import Reading, Shuffling

logger = logging.getLogger("fastsoftmax")

KEPT_SHARE = 0.8  # of the memory: rows that are kept, and the windows
SPARE = 1.1  # free space asked for, over what will be written


@dataclass(frozen=True)
class ReadPlan:
    """How rows are read; the windows are the same whatever it says.

    readers: threads that decode. keep: where decoded rows stay for later epochs, "off", "memory" or
    "disk". folder: of files on disk. named: whether they stay there for further runs.
    """

    readers: int = 1
    keep: str = "off"
    folder: Path | None = None
    named: bool = False


PLAIN = ReadPlan()


def choose_reading(
    source: Source, plan: ShufflePlan, reading: Reading, *, rereads: bool
) -> ReadPlan:
    """Return how to read `source`; rereads: some rows are read more than once.

    Raises OptionError where rows are to be kept in memory and do not fit.
    """
    keep, memory = reading.cache, source.room(reading.memory_bytes)
    if keep == "memory" and not (source.in_memory or _fits(plan, memory)):
        raise OptionError(
            f"cache=memory keeps all rows decoded, more than memory={reading.memory}"
            " allows: raise memory=, or choose cache=disk"
        )
    if keep == "auto":
        keep = _where_to_keep(source, plan, reading, rereads)
    # Readers are fewer rather than that columns are joined through a file, which takes longer.
    affordable = int(PAGES_SHARE * memory) // max(source.reading_bytes, 1)
    readers = max(min(reading.reader_count, affordable), 1)
    # One piece is all that is read at a time: then its columns are what threads can share.
    is_alone = source.pieces is not None and len(source.pieces) == 1
    source.allot(memory // readers, readers if is_alone else 1)
    return ReadPlan(readers, keep, _folder(reading), reading.cache_folder is not None)


def _folder(reading: Reading) -> Path:
    """Return where rows are kept on disk."""
    return cache_folder() if reading.cache_folder is None else Path(reading.cache_folder)


def _fits(plan: ShufflePlan, memory: int) -> bool:
    """Return whether all rows fit the memory: in one window, or beside the two that are alive."""
    if plan.holds_all:
        return True
    return plan.fits and plan.size + 2 * plan.window_bytes <= KEPT_SHARE * memory


def _where_to_keep(source: Source, plan: ShufflePlan, reading: Reading, rereads: bool) -> str:
    """Return where rows are kept if nobody says: where they fit, if they are read again."""
    if reading.cache_folder is not None and not source.in_memory:
        return "disk"
    if plan.holds_all:
        return "off" if plan.first and not rereads else "memory"
    # Even what needs no decoding reads faster from a cache: a Parquet page's checksum takes longer
    # than ours, and an IPC file is not ours to map.
    if source.in_memory or source.rows is None or not rereads:
        return "off"
    if _fits(plan, source.room(reading.memory_bytes)):
        return "memory"
    folder = _folder(reading)
    if has_room(folder, plan.size):
        return "disk"
    logger.info("too little space in %s for decoded rows: each epoch decodes them anew", folder)
    return "off"


def has_room(folder: Path, size: int) -> bool:
    """Return whether a file of `size` bytes fits in the folder, or in the nearest that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free >= SPARE * size


def choose_plan(
    source: Source,
    shuffling: Shuffling,
    reading: Reading,
    segments: Segments | None,
    *,
    streams: bool = False,
) -> ShufflePlan:
    """Return the plan; unless asked for, sorted rows are dealt only where there is room.

    streams: see `make_plan`.
    """
    plan = make_plan(source, shuffling, reading.memory_bytes, segments, streams=streams)
    if plan.kind == "full" and shuffling.shuffle == "auto":
        folder = _folder(reading)
        if not has_room(folder, plan.size):
            warnings.warn(
                f"the rows are sorted, but {folder} has no room to deal them anew: they are"
                " shuffled within windows, which learns worse. Name a folder with cache_folder=.",
                UserWarning,
                stacklevel=2,
            )
            shuffling = replace(shuffling, shuffle="window")
            return make_plan(source, shuffling, reading.memory_bytes, segments)
    return plan

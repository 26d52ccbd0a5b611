"""Decoded rows that are kept come back as they were, or not at all."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.loading.cache import DiskCache, MemoryCache
from fastsoftmax.data.parts import Codes, Dense
from fastsoftmax.data.source import Chunk
from fastsoftmax.errors import DataError
from fastsoftmax.files import cache_folder
from fastsoftmax.kernels.checksum import checksum

RNG = np.random.default_rng(3)


def chunk(piece, start, rows=7, *, order="C", weighted=True, held=True):
    parts = (
        Dense(np.asarray(RNG.normal(size=(rows, 5)).astype(np.float32), order=order)),
        Dense(RNG.integers(0, 255, (rows, 20)).astype(np.uint8)),
        Codes(RNG.integers(-1, 4, (rows, 1)).astype(np.int32), 4),
        Dense(RNG.normal(size=(rows, 1))),
    )
    labels = RNG.integers(0, 9, rows).astype(np.int32)
    weights = RNG.random(rows) if weighted else None
    return Chunk(
        parts, labels, weights, piece, start, held=RNG.random(rows) < 0.5 if held else None
    )


def assert_same(got, want):
    assert (got.piece, got.start, got.rows) == (want.piece, want.start, want.rows)
    for mine, part in zip(got.parts, want.parts, strict=True):
        assert mine.described == part.described
        assert_array_equal(mine.values, part.values)
    for name in ("labels", "weights", "held"):
        mine, theirs = getattr(got, name), getattr(want, name)
        assert (mine is None) == (theirs is None)
        if theirs is not None:
            assert mine.dtype == theirs.dtype
            assert_array_equal(mine, theirs)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_chunks_come_back_by_their_piece(tmp_path, kind, order, held, weighted):
    chunks = [
        chunk(piece, start, order=order, weighted=weighted, held=held)
        for piece, start in [(2, 0), (0, 0), (2, 7), (1, 0), (2, 14)]
    ]
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    for one in chunks:
        cache.add(one)
    cache.seal()
    for _ in range(2):
        for piece in (2, 1, 0):
            want = [one for one in chunks if one.piece == piece]
            for got, one in zip(cache.read(piece), want, strict=True):
                assert_same(got, one)
    assert list(cache.read(9)) == []
    cache.close()


def test_a_private_file_has_no_name_while_it_is_used_and_no_room_after(tmp_path):
    cache = DiskCache(tmp_path)
    cache.add(chunk(0, 0))
    assert list(tmp_path.iterdir()) == []
    cache.seal()
    assert list(tmp_path.iterdir()) == []
    descriptor = cache._descriptor
    cache.close()
    cache.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_named_file_is_there_once_it_is_whole_and_used_again(tmp_path):
    kept = chunk(4, 0)
    first = DiskCache(tmp_path / "new", "rows.arrow")
    first.add(kept)
    assert not first.is_sealed
    assert not (tmp_path / "new" / "rows.arrow").exists()
    first.seal()
    first.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.arrow"]
    again = DiskCache(tmp_path / "new", "rows.arrow")
    assert again.is_sealed
    (got,) = again.read(4)
    assert_same(got, kept)
    again.close()
    assert pa.ipc.open_file(tmp_path / "new" / "rows.arrow").num_record_batches == 1


def test_an_unfinished_named_file_is_removed(tmp_path):
    cache = DiskCache(tmp_path, "rows.arrow")
    cache.add(chunk(0, 0))
    cache.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["features", "labels"])
def test_a_changed_byte_is_found(tmp_path, part):
    kept = chunk(0, 0, rows=100)
    cache = DiskCache(tmp_path, "rows.arrow")
    cache.add(kept)
    cache.seal()
    cache.close()
    path = tmp_path / "rows.arrow"
    content = bytearray(path.read_bytes())
    wanted = kept.parts[0].values.tobytes() if part == "features" else kept.labels.tobytes()
    content[content.index(wanted) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="not what was written"):
        list(DiskCache(tmp_path, "rows.arrow").read(0))


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_named_file_is_made_anew(tmp_path, damage):
    path = tmp_path / "rows.arrow"
    cache = DiskCache(tmp_path, "rows.arrow")
    cache.add(chunk(0, 0))
    cache.seal()
    cache.close()
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-9], "empty": b"", "foreign": b"something else"}[damage])
    again = DiskCache(tmp_path, "rows.arrow")
    assert not again.is_sealed
    kept = chunk(1, 0)
    again.add(kept)
    again.seal()
    (got,) = again.read(1)
    assert_same(got, kept)
    again.close()


def test_the_folder_is_the_one_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert cache_folder() == tmp_path


@pytest.mark.parametrize("size", [0, 1, 7, 8, 255, 256, 257, 4096, 5000])
def test_a_checksum_changes_with_any_byte_and_with_the_length(size):
    array = RNG.integers(0, 256, size).astype(np.uint8)
    want = checksum(array)
    assert checksum(array.copy()) == want
    assert checksum(np.append(array, np.uint8(0))) != want
    for at in range(0, size, 37):
        for bit in (1, 128):
            changed = array.copy()
            changed[at] ^= bit
            assert checksum(changed) != want

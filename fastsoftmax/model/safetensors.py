"""The only place that knows the safetensors layout, in which models and checkpoints lie.

    8 bytes     the header's length, little-endian
    header      JSON: {"__metadata__": {text: text}, name: {dtype, shape, data_offsets}, ...}
    the rest    the tensors' bytes, little-endian, back to back

Written here, and not by a library, so that the same model is the same bytes whatever is installed.
Source: the format's own description, https://github.com/huggingface/safetensors.

Among the metadata is a checksum of all that the file holds, so that a flipped bit is found. It is
checked where it is there: another program that rewrites a file may leave it out.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from reprlib import repr as brief  # what a damaged file says is of any length
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fastsoftmax.errors import ModelFileError
from fastsoftmax.model.strict_json import parse_json

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
CHECKSUM = "sha256"


def encode_tensors(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return the pieces of the file that holds `tensors`, `metadata` and a checksum of both."""
    stored = {name: _as_stored(tensor) for name, tensor in sorted(tensors.items())}
    header: dict[str, Any] = {
        "__metadata__": {**metadata, CHECKSUM: _checksum(stored, metadata)},
    }
    end = 0
    for name, tensor in stored.items():
        begin, end = end, end + tensor.nbytes
        offsets = [begin, end]
        shape = list(tensor.shape)
        header[name] = {"dtype": CODES[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return [len(text).to_bytes(8, "little"), text, *map(_bytes_of, stored.values())]


def decode_tensors(
    path: str | os.PathLike[str], kind: str = "model", *, insists: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors, read-only, and the metadata of a file of this kind.

    insists: a file without a checksum is damaged; other writers' models have none.
    Nothing in it is trusted before it is checked, and what is held meanwhile is in proportion to
    the file. Raises ModelFileError where the file is missing, damaged or not of this layout.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb", opener=_open_quickly) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{name} is not a {kind} file: it is not a regular file.")
            return _decode(file, insists=insists)
    except _Foreign:
        raise ModelFileError(f"{name} is not a {kind} file.") from None
    except _Damaged as damage:
        raise ModelFileError(f"{name} is damaged, or not a {kind} file: {damage}.") from None
    except FileNotFoundError:
        raise ModelFileError(f"{name} does not exist; give the path of a {kind} file.") from None
    except (OSError, ValueError) as error:  # the path may hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{name} could not be read: {reason}.") from error
    except MemoryError:
        raise ModelFileError(f"{name} is larger than the memory that is left.") from None


class _Foreign(Exception):
    """A file does not begin as one of this layout."""


class _Damaged(Exception):
    """What is wrong with a file."""


class _Entry(NamedTuple):
    """Where a tensor lies and what it is; sorted by where."""

    begin: int
    end: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def _as_stored(tensor: np.ndarray) -> np.ndarray:
    return np.asarray(tensor, dtype=tensor.dtype.newbyteorder("<"), order="C")


def _bytes_of(tensor: np.ndarray) -> memoryview:
    return tensor.reshape(-1).view(np.uint8).data


def _checksum(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return a digest of what is stored, wherever in the file it stands."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        entry = [name, CODES[tensor.dtype], list(tensor.shape)]
        digest.update(json.dumps(entry).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _open_quickly(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)


def _decode(file: BinaryIO, *, insists: bool) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    header, left = _read_header(file)
    metadata = header.pop("__metadata__", {})
    if not _is_text_map(metadata):
        raise _Damaged("its metadata are not text")
    layout = {name: _read_entry(entry, name) for name, entry in header.items()}
    _check_spans(layout.values(), left)
    tensors = {}
    for name, entry in sorted(layout.items(), key=lambda item: item[1][:2]):
        data = file.read(entry.end - entry.begin)
        if len(data) != entry.end - entry.begin:
            raise _Damaged("it ended while it was being read")
        tensors[name] = np.frombuffer(data, entry.dtype).reshape(entry.shape)
    promised = metadata.pop(CHECKSUM, None)
    if promised is None and insists:
        raise _Damaged("it has no checksum")
    if promised is not None and promised != _checksum(tensors, metadata):
        raise _Damaged("its checksum is not that of what it holds")
    return tensors, metadata


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header and how many bytes follow it."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or length > LONGEST_HEADER:
        raise _Foreign
    if length > size - 8:
        raise _Damaged(f"its header should have {length} bytes, the file has {size} in all")
    try:
        header = parse_json(b"{" + file.read(length - 1))
    except ValueError as error:
        raise _Damaged(f"its header is not JSON ({error})") from None
    return header, size - 8 - length


def _read_entry(entry: object, name: str) -> _Entry:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Damaged(f"tensor {brief(name)} is not described by dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise _Damaged(f"tensor {brief(name)} has the dtype {brief(code)}, which is not read")
    if not _is_shape(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _Damaged(f"tensor {brief(name)} has a shape or offsets that are no sizes")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[code].itemsize:
        raise _Damaged(f"tensor {brief(name)} has a shape that does not fit its bytes")
    return _Entry(begin, end, DTYPES[code], tuple(shape))


def _check_spans(layout: Iterable[_Entry], left: int) -> None:
    """Check that the tensors lie back to back and end where the file ends."""
    position = 0
    for begin, end in sorted(entry[:2] for entry in layout):
        if begin != position:
            raise _Damaged("its tensors overlap or leave holes")
        position = end
    if position != left:
        raise _Damaged(f"its tensors should have {position} bytes, but {left} are there")


def _is_shape(values: Any) -> bool:
    # NumPy refuses what would be too large if no side were 0.
    return _are_sizes(values) and len(values) <= 8 and math.prod(v or 1 for v in values) < 2**59


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63 for v in values
    )


def _is_text_map(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) for v in values.values())

"""The only place that knows the safetensors layout.

    8 bytes     the header's length, little-endian
    header      JSON: {"__metadata__": {text: text}, name: {dtype, shape, data_offsets}, ...}
    the rest    the tensors' bytes, little-endian, back to back

Written here, and not by a library, so that the same model is the same bytes whatever is installed.
Source: the format's own description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from fastsoftmax.errors import ModelFileError

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def encode_tensors(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return the pieces of the file that holds float32 or float64 `tensors` and `metadata`."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        code = f"F{8 * tensor.dtype.itemsize}"
        stored = np.ascontiguousarray(tensor, dtype=DTYPES[code])
        begin, end = end, end + stored.nbytes
        header[name] = {"dtype": code, "shape": list(stored.shape), "data_offsets": [begin, end]}
        pieces.append(stored.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    return [len(text).to_bytes(8, "little"), text, *pieces]


def decode_tensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a file; nothing in it is trusted before it is checked.

    Raises ModelFileError where the file is missing, damaged or not of this layout.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb", opener=_open_quickly) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{name} is not a model file: it is not a regular file.")
            return _decode(file, name)
    except FileNotFoundError:
        raise ModelFileError(f"{name} does not exist; give the path of a model file.") from None
    except OSError as error:
        raise ModelFileError(f"{name} could not be read: {error.strerror or error}.") from error


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text says; raise ValueError for twice the same key, NaN or infinities."""
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _open_quickly(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _decode(file: BinaryIO, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    header, left = _read_header(file, name)
    metadata = header.pop("__metadata__", {})
    if not _is_text_map(metadata):
        raise _damaged(name, "its metadata are not text")
    layout = {key: _read_entry(entry, key, name) for key, entry in header.items()}
    _check_spans(layout, left, name)
    tensors = {}
    for key, (dtype, shape, begin, end) in sorted(layout.items(), key=lambda item: item[1][2:]):
        data = file.read(end - begin)
        if len(data) != end - begin:
            raise _damaged(name, "it ended while it was being read")
        tensors[key] = np.frombuffer(data, dtype).reshape(shape)
    return tensors, metadata


def _read_header(file: BinaryIO, name: str) -> tuple[dict[str, Any], int]:
    """Return the header and how many bytes follow it."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 9 or start[8:] != b"{" or length > LONGEST_HEADER:
        raise ModelFileError(f"{name} is not a model file.")
    if length > size - 8:
        raise _damaged(name, f"its header should have {length} bytes, the file has {size} in all")
    try:
        header = parse_json(b"{" + file.read(length - 1))
    except ValueError as error:
        raise _damaged(name, f"its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(name, "its header is not a JSON object")
    return header, size - 8 - length


def _read_entry(
    entry: object, key: str, name: str
) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Return dtype, shape, begin and end of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, f"tensor {key!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _damaged(name, f"tensor {key!r} has the dtype {dtype!r}, neither F32 nor F64")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _damaged(name, f"tensor {key!r} has a shape or offsets that are no sizes")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _damaged(name, f"tensor {key!r} has a shape that does not fit its bytes")
    return DTYPES[dtype], tuple(shape), begin, end


def _check_spans(
    layout: dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]], left: int, name: str
) -> None:
    """Check that the tensors lie back to back and end where the file ends."""
    position = 0
    for begin, end in sorted((begin, end) for _, _, begin, end in layout.values()):
        if begin != position:
            raise _damaged(name, "its tensors overlap or leave holes")
        position = end
    if position != left:
        raise _damaged(name, f"its tensors should have {position} bytes, but {left} are there")


def _are_sizes(values: object) -> bool:
    if not isinstance(values, list) or len(values) > 8:
        return False
    return all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63 for v in values)


def _is_text_map(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(v, str) for v in values.values())


def _damaged(name: str, why: str) -> ModelFileError:
    return ModelFileError(f"{name} is damaged, or not a model file: {why}.")

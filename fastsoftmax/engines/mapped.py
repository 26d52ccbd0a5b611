"""The only place that hands a value to other processes of this machine in memory that all map.

Pickle protocol 5 keeps the bytes of arrays apart from what describes them; these lie in a file of
memory, and whoever reads the value points into it. It is pickled as the standard library's own
pools do: by us, for processes that we began, never from a file that anyone gave us.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pickle
import tempfile
import threading
from collections import OrderedDict
from typing import Any

from fastsoftmax.errors import OptionError

ALIGNED = 64  # bytes: a cache line
SMALL = 2**16  # bytes: less than these travel with the task
MOST_ATTACHED = 3  # values that a process keeps attached

_serial = itertools.count()
_attached: OrderedDict[tuple[str, int], Any] = OrderedDict()
_lock = threading.Lock()


class Mapped:
    """A value in memory that processes of this machine can map; pickled, it is that value."""

    def __init__(self, value: Any, *, once: bool = False) -> None:
        """once: it is read by one process, once."""
        self._once = once
        buffers: list[pickle.PickleBuffer] = []
        try:
            head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise OptionError(
                f"the data cannot be handed to other processes ({error}): write them to a file, or"
                " leave out workers, so that threads of this process do the work"
            ) from error
        self._file, self._path = _new_file()
        self._number = next(_serial)  # a descriptor is used again for the next file
        self._spans: list[tuple[int, int]] = []
        with os.fdopen(os.dup(self._file), "wb") as file:
            for part in (memoryview(head), *(buffer.raw() for buffer in buffers)):
                file.write(b"\0" * (-file.tell() % ALIGNED))
                self._spans.append((file.tell(), part.nbytes))
                file.write(part)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._once:
            return _read, (self._path, tuple(self._spans))
        return attached, (self._path, self._number, tuple(self._spans))

    @property
    def nbytes(self) -> int:
        """The bytes of the value."""
        return sum(size for _, size in self._spans)

    def close(self) -> None:
        """Give the memory back, once nobody maps it any more."""
        os.close(self._file)
        if not self._path.startswith("/proc/"):
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def attached(path: str, number: int, spans: tuple[tuple[int, int], ...]) -> Any:
    """Return the value that a Mapped of another process stands for, the same at each call."""
    with _lock:
        key = path, number
        if key not in _attached:
            _attached[key] = _read(path, spans)
            while len(_attached) > MOST_ATTACHED:
                _attached.popitem(last=False)
        _attached.move_to_end(key)
        return _attached[key]


def _read(path: str, spans: tuple[tuple[int, int], ...]) -> Any:
    """Return the value in a file, whose arrays point into it."""
    with open(path, "rb") as file:
        # Copied on write: kernels are not compiled again for arrays that are read-only.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = memoryview(mapped)
    head, *buffers = (whole[first : first + size] for first, size in spans)
    return pickle.loads(head, buffers=buffers)


def _new_file() -> tuple[int, str]:
    """Return the descriptor of a file in memory, and a path by which others find it.

    On Linux it has no name of its own, so that nothing is left of it whatever becomes of us.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("fastsoftmax")
        return file, f"/proc/{os.getpid()}/fd/{file}"
    return tempfile.mkstemp(prefix="fastsoftmax-shared-")

"""The only place that compiles several kernels at once: in processes of their own, side by side.

Each is told of one kernel after the other, keeps its machine code and says so. Who needs a kernel
waits for that, and compiles it himself where no process has: nothing depends on them but time.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from fastsoftmax.kernels import code
from fastsoftmax.kernels.compile import Call, count, helpers
from fastsoftmax.kernels.frames import Kind

MOST = 8  # processes
LONGEST = 120.0  # seconds that a kernel is waited for, many times what the largest takes
# A process imports this package from where this one did, whatever its own settings would find.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from fastsoftmax.kernels.ahead import serve; serve(*sys.argv[2:])"
)


def can_help() -> bool:
    """Return whether processes can be started that keep code where this one finds it."""
    # An application that Python is built into would be started a second time.
    name = Path(sys.executable or "").name.lower()
    is_python = name.startswith("python") and not hasattr(sys, "frozen")
    return code.FOLDER is not None and is_python and sys.platform == "linux"


class Crew:
    """Processes that compile kernels, in the order of `calls`; those that are waited for first.

    The first call is compiled before the others are begun, which share what was made for it: to
    load the compiler in each process takes a second, and to compile `gather` in each another.
    Used as a context manager; what is not done at its end is left.
    """

    def __init__(self, calls: Iterable[Call], size: int, *, more: bool = False) -> None:
        """more: others will be added, for which those processes wait that have nothing to do."""
        self._more_come = more
        self._left, self._at_work = list(calls), set[Call]()
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._leading = 0  # threads that have a process
        self._claim: int | None = None
        self._size = min(size, MOST if more else len(self._left), MOST)

    def __enter__(self) -> Crew:
        if self._size > 1 and can_help() and (claim := code.claim()) is not None:
            self._claim = claim
            self._start()
        helpers.append(self.wait_for)
        return self

    def __exit__(self, *error: object) -> None:
        helpers.remove(self.wait_for)
        with self._changed:
            self._left.clear()
            self._more_come = False
            self._changed.notify_all()
            if self._at_work and self._process is not None:
                os.killpg(self._process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join()
        if self._process is not None:
            self._process.wait()
        if self._claim is not None:
            os.close(self._claim)

    def _start(self) -> None:
        """Start a process that becomes several, and a thread for each that hands it kernels."""
        pairs = [socket.socketpair() for _ in range(self._size)]
        theirs = [there.fileno() for _, there in pairs]
        told = [json.dumps([str(place) for place in sys.path]), str(code.FOLDER)]
        lines = [here for here, _ in pairs]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *told, *map(str, theirs)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=theirs,
                process_group=0,  # an interrupt is for this process
            )  # fmt: skip
        except OSError:  # this process compiles alone
            while lines:
                lines.pop().close()
        finally:
            for _, there in pairs:
                there.close()
        self._leading = len(lines)
        for line in lines:
            thread = threading.Thread(target=self._lead, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def add(self, calls: Iterable[Call]) -> None:
        """Have these compiled too; there will be no more."""
        with self._changed:
            known = {*self._left, *self._at_work}
            self._left += [call for call in calls if call not in known]
            self._more_come = False
            self._changed.notify_all()

    def wait_for(self, call: Call) -> None:
        """Return when a kernel is compiled, or it is known that nobody here will."""
        with self._changed:
            if call in self._left:
                self._left.remove(call)
                self._left.insert(0, call)
            self._changed.wait_for(lambda: not self._is_coming(call), LONGEST)

    def _is_coming(self, call: Call) -> bool:
        return self._leading > 0 and (call in self._left or call in self._at_work)

    def _lead(self, line: socket.socket) -> None:
        """Hand a process one kernel after the other for as long as it answers."""
        with suppress(OSError), line, line.makefile("rw") as stream:
            while (call := self._next()) is not None:
                is_done = _asked(stream, call)
                if is_done:
                    count(call)
                with self._changed:
                    self._at_work.discard(call)
                    self._leading -= not is_done
                    self._changed.notify_all()
                if not is_done:
                    return
        with self._changed:
            self._leading -= 1
            self._changed.notify_all()

    def _next(self) -> Call | None:
        with self._changed:
            self._changed.wait_for(lambda: self._left or not self._more_come)
            if not self._left:
                return None
            call = self._left.pop(0)
            self._at_work.add(call)
            return call


def _asked(stream: Any, call: Call) -> bool:
    """Have a process compile a kernel; return whether it did."""
    function = call.kernel.py_func
    try:
        told = [function.__module__, function.__qualname__, call.kinds]
        stream.write(json.dumps(told) + "\n")
        stream.flush()
        return stream.readline() == "done\n"
    except (OSError, ValueError):  # it is gone
        return False


def serve(folder: str, *places: str) -> None:
    """Compile what is named on some sockets, a process each, until their other ends are closed."""
    if folder != str(code.FOLDER):
        return  # other sources, or another place for code
    lines = [socket.socket(fileno=int(place)) for place in places]
    own = lines[0].makefile("rw")
    _serve_one(own)
    for i, line in enumerate(lines[1:], start=1):
        if not os.fork():
            own.close()
            for other in (*lines[:i], *lines[i + 1 :]):
                other.close()
            _serve_all(line.makefile("rw"))
            os._exit(0)
    for line in lines[1:]:
        line.close()
    _serve_all(own)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _serve_all(stream: Any) -> None:
    while _serve_one(stream):
        pass


def _serve_one(stream: Any) -> bool:
    """Compile what a line names, and answer; return False where there is none."""
    told = stream.readline()
    if not told:
        return False
    module, name, kinds = json.loads(told)
    getattr(import_module(module), name).compile(_kinds(kinds))
    stream.write("done\n")
    stream.flush()
    return True


def _kinds(told: list[Any]) -> tuple[Kind, ...]:
    """Return kinds as they were before they were JSON."""
    return tuple(_kinds(each) if isinstance(each, list) else each for each in told)

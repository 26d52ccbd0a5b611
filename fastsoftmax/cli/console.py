"""The only place that talks on stderr, and hears the signals that ask a command to stop."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import NoReturn

from fastsoftmax.evaluation.formatting import printable

ERASE_LINE = "\r\x1b[K"


class Console:
    """What is said on stderr: lines that stay and, on a terminal, one that is overwritten."""

    def __init__(self) -> None:
        self.is_live = sys.stderr.isatty()
        self.signal = 0  # that asked to stop

    def say(self, line: str) -> None:
        """Print a line."""
        self._print((ERASE_LINE if self.is_live else "") + printable(line) + "\n")

    def show(self, line: str) -> None:
        """Overwrite the line that was shown before; nothing where stderr is no terminal."""
        if self.is_live:
            width = shutil.get_terminal_size().columns - 1
            self._print(ERASE_LINE + printable(line)[:width])

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody may be left to hear it
            print(text, end="", file=sys.stderr, flush=True)


def escape_what_cannot_be_shown() -> None:
    """Let a class name that the terminal cannot show be escaped, and not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let a request to terminate unwind the stack, so that partial files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def stopping_gently(console: Console) -> Iterator[None]:
    """Let a first request to stop be noticed between rows, and a second one end all at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        if console.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if console.signal:
            raise SystemExit(128 + number)
        console.signal = number

    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # as in a job that runs in the background
                signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def short_warnings() -> Iterator[None]:
    """Print warnings as sentences, without the line of code that gave them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        Console().say(f"fastsoftmax: warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def escaped_log() -> Iterator[None]:
    """Spell out control characters in what is logged: the log, too, ends on the terminal."""
    import logging  # which --help does not need

    def escape(record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True

    logger = logging.getLogger("fastsoftmax")
    logger.addFilter(escape)
    try:
        yield
    finally:
        logger.removeFilter(escape)

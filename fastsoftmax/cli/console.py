"""The only place that meets the standard streams, and hears signals that ask a command to stop."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import NoReturn, TextIO

from fastsoftmax.errors import SaveError
from fastsoftmax.evaluation.formatting import printable

ERASE_LINE = "\r\x1b[K"


class Console:
    """What is said on stderr: lines that stay and, on a terminal, one that is overwritten."""

    def __init__(self) -> None:
        self.is_live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
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
        try:
            print(text, end="", file=sys.stderr, flush=True)
        except OSError:  # nobody may be left to hear it
            silence(sys.stderr)


def open_closed_streams() -> None:
    """Give a command whose standard streams are closed others that lead nowhere.

    Else the next file that is opened would take the place of one, and what is said would end in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process


def print_results(lines: Iterable[str]) -> None:
    """Print lines on stdout; raise SaveError where they cannot be written there."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise
    except OSError as error:
        silence(sys.stdout)
        reason = error.strerror or str(error)
        raise SaveError(f"the results could not be written to stdout: {reason}.") from error


def silence(stream: TextIO) -> None:
    """Let what a stream still holds lead nowhere: a flush at exit would complain about it again."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


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
def telling_of_compiling(console: Console) -> Iterator[None]:
    """Say how many kernels are compiled: on a terminal as each is done, else at begin and end."""
    import logging  # which --help does not need

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if console.is_live:
                console.show(record.getMessage())
            elif record.levelno >= logging.INFO:
                console.say(record.getMessage())

    logger, handler = logging.getLogger("fastsoftmax.compiling"), Telling()
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        console.show("")


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

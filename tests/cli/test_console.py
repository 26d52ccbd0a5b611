"""The console shows lines on stderr, and hears what asks a command to stop."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings

import pytest

from fastsoftmax.cli.console import (
    ERASE_LINE,
    Console,
    escape_what_cannot_be_shown,
    escaped_log,
    print_results,
    short_warnings,
    stoppable,
    stopping_gently,
)
from fastsoftmax.errors import SaveError


@pytest.fixture
def terminal(capsys, monkeypatch) -> Console:
    """A console whose stderr is a terminal of 20 columns."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    return Console()


def test_a_line_that_is_shown_is_overwritten_by_the_next(terminal, capsys):
    terminal.show("one")
    terminal.say("two")
    assert capsys.readouterr().err == f"{ERASE_LINE}one{ERASE_LINE}two\n"


def test_a_line_that_is_shown_fits_in_the_terminal(terminal, capsys):
    terminal.show("x" * 99)
    assert capsys.readouterr().err == ERASE_LINE + "x" * 19


def test_nothing_is_shown_where_stderr_is_no_terminal(capsys):
    Console().show("one")
    Console().say("two\x1b")
    assert capsys.readouterr().err == "two\\x1b\n"


class Gone(io.StringIO):
    """A stream that nobody reads, and that takes nothing any more."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_nobody_may_be_left_to_hear(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    Console().say("anything")


def test_results_that_cannot_be_printed_are_an_error(monkeypatch):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SaveError, match="could not be written to stdout: No space left on device"):
        print_results(["a result"])
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        print_results(["a result"])


def test_a_terminal_that_cannot_erase_is_shown_nothing_that_is_to_be_erased(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    Console().show("one")
    Console().say("two")
    assert capsys.readouterr().err == "two\n"


@pytest.fixture
def hears_interrupts():
    """Hear Ctrl-C as in the foreground, where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_interrupts")
def test_a_first_signal_is_noted_and_a_second_one_ends_all(capsys):
    console = Console()
    with stopping_gently(console):
        os.kill(os.getpid(), signal.SIGTERM)
        assert console.signal == signal.SIGTERM
        with pytest.raises(SystemExit) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.value.code == 128 + signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_request_to_terminate_unwinds_the_stack():
    with stoppable(), pytest.raises(SystemExit) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("guarded", [stoppable, lambda: stopping_gently(Console())])
def test_signals_are_heard_again_as_before(guarded):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with guarded():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("guarded", [stoppable, lambda: stopping_gently(Console())])
def test_a_thread_that_hears_no_signals_sets_no_handler(guarded):
    seen = []

    def work() -> None:
        with guarded():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert seen == [before]


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        console = Console()
        with stopping_gently(console):
            os.kill(os.getpid(), signal.SIGINT)
        assert console.signal == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_warning_is_said_without_its_line_of_code(capsys):
    with short_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd\x1b", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "fastsoftmax: warning: odd\\x1b\n"


def test_the_log_is_escaped_only_for_as_long_as_a_command_runs(caplog):
    logger = logging.getLogger("fastsoftmax")
    with escaped_log():
        logger.warning("%s", "a\x1b")
    logger.warning("%s", "b\x1b")
    assert [record.getMessage() for record in caplog.records] == ["a\\x1b", "b\x1b"]


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    escape_what_cannot_be_shown()
    sys.stdout.write("é")
    sys.stdout.flush()
    assert raw.getvalue() == b"\\xe9"

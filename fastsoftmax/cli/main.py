"""The only place where a command begins and ends: which one it is, and its exit code.

Results go to stdout, talk goes to stderr; whatever fails is one sentence and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence

from fastsoftmax.cli import commands, parsers, trials
from fastsoftmax.cli.console import (
    Console,
    escape_what_cannot_be_shown,
    escaped_log,
    open_closed_streams,
    print_results,
    short_warnings,
    stoppable,
    stopping_gently,
    telling_of_compiling,
)
from fastsoftmax.errors import FastsoftmaxError, OptionError, UnknownOptionError
from fastsoftmax.evaluation.formatting import printable
from fastsoftmax.version import __version__

_PRODUCTS = "OPENBLAS_NUM_THREADS"  # read by the library of products that NumPy loads
GENTLE = ("train", "sweep")  # commands that end between rows when they are told to stop
COMMANDS = {
    "train": (parsers.train_parser, commands.train),
    "sweep": (parsers.sweep_parser, commands.sweep),
    "cross-validate": (parsers.cross_validate_parser, trials.cross_validate),
    "audit": (parsers.audit_parser, trials.audit),
    "learning-curve": (parsers.learning_curve_parser, trials.learning_curve),
    "evaluate": (parsers.evaluate_parser, commands.evaluate),
    "report": (parsers.report_parser, commands.report),
    "calibrate": (parsers.calibrate_parser, commands.calibrate),
    "predict": (parsers.predict_parser, commands.predict),
    "export": (parsers.export_parser, commands.export),
    "pack": (parsers.pack_parser, commands.pack),
    "convert": (parsers.convert_parser, commands.convert),
    "inspect": (parsers.inspect_parser, commands.inspect),
    "warmup": (parsers.warmup_parser, commands.warmup),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; say what failed in one sentence."""
    open_closed_streams()
    escape_what_cannot_be_shown()
    try:
        with stoppable(), short_warnings(), without_idle_threads():
            _dispatch(list(sys.argv[1:] if argv is None else argv))
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail(130, "interrupted; no output was written.")
    except BrokenPipeError:
        return 141  # whoever read the output has left
    except Exception as error:
        return _fail(*_explained(error))


@contextlib.contextmanager
def without_idle_threads() -> Iterator[None]:
    """Have NumPy loaded without threads for matrix products, unless somebody says how many.

    No command has such products, and as they start, idle threads take a core for a tenth of a
    second that the rows could be decoded in.
    """
    if _PRODUCTS in os.environ:
        yield
        return
    os.environ[_PRODUCTS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_PRODUCTS, None)


def _explained(error: Exception) -> tuple[int, str]:
    """Return the exit code of an error, and the sentence that tells it."""
    if isinstance(error, FastsoftmaxError):
        return error.exit_code, str(error)
    if isinstance(error, UnicodeEncodeError):
        return 2, f"{error.object!r} is no text in UTF-8; give it another name."
    if isinstance(error, MemoryError):
        return 1, f"the memory of this machine is full ({error})."
    if isinstance(error, OSError):
        return 1, f"{error.filename or 'the system'}: {error.strerror or error}."
    hint = "Set FASTSOFTMAX_DEBUG=1 to see where, and report it."
    return 1, f"an error of fastsoftmax itself: {type(error).__name__}: {error}. {hint}"


def _dispatch(argv: list[str]) -> None:
    if argv[:1] in (["--help"], ["-h"], ["help"]):
        print_results(parsers.OVERVIEW.splitlines())
    elif argv[:1] == ["--version"]:
        print_results([f"fastsoftmax {__version__}"])
    elif not argv:
        raise OptionError(f"give a command: {', '.join(COMMANDS)}; see fastsoftmax --help")
    elif argv[0] not in COMMANDS:
        kind = "option" if argv[0].startswith("-") else "command"
        raise UnknownOptionError(
            f"there is no {kind} {argv[0]}{parsers.nearest(argv[0], COMMANDS)}"
        )
    else:
        build, run = COMMANDS[argv[0]]
        args = parsers.parsed(build(), argv[1:])
        console = Console()
        gently = stopping_gently(console) if argv[0] in GENTLE else contextlib.nullcontext()
        is_told = not (args.get("quiet") or args.get("verbose"))
        telling = telling_of_compiling(console) if is_told else contextlib.nullcontext()
        with escaped_log(), telling, gently:
            print_results(map(printable, run(args, console)))


def _fail(code: int, sentence: str) -> int:
    if os.environ.get("FASTSOFTMAX_DEBUG") == "1":
        for line in traceback.format_exc().splitlines():
            Console().say(line)
    Console().say(f"fastsoftmax: {sentence}")
    return code

"""The commands: the only argparse, the only print.

Results go to stdout, talk goes to stderr; whatever fails is one sentence and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import os
import re
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from fastsoftmax.cli import commands
from fastsoftmax.errors import FastsoftmaxError, OptionError, UnknownOptionError
from fastsoftmax.evaluation.formatting import printable
from fastsoftmax.options import OPTIONS, SWEPT
from fastsoftmax.version import __version__

ERASE_LINE = "\r\x1b[K"
DATA_HELP = "Parquet or Arrow files, folders or globs: one data set"
OVERVIEW = """\
usage: fastsoftmax COMMAND ...

Softmax regression on more rows than fit in memory, straight from Parquet and Arrow.

  fastsoftmax train     learn a model from data with a column of classes
  fastsoftmax sweep     learn a model of each of many settings over one read of the data
  fastsoftmax evaluate  measure a model on rows whose classes are known
  fastsoftmax calibrate make a model as sure as validation data show it may be
  fastsoftmax predict   write a class and its probability for each row
  fastsoftmax pack      rewrite data into the layout that reads fastest
  fastsoftmax inspect   say what is in a model or a data set
  fastsoftmax warmup    compile everything now, so that later runs start at once

Each has its own --help with an example. `fastsoftmax --version` prints the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; say what failed in one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a class name that the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        with _stoppable(), _short_warnings():
            _dispatch(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
        return 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        return _fail(130, "interrupted; no output was written.")
    except BrokenPipeError:
        # Whoever read the output has left; a second flush at exit would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _fail(*_explained(error))


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
        print(OVERVIEW, end="")
    elif argv[:1] == ["--version"]:
        print(f"fastsoftmax {__version__}")
    elif not argv:
        raise OptionError(f"give a command: {', '.join(COMMANDS)}; see fastsoftmax --help")
    elif argv[0] not in COMMANDS:
        kind = "option" if argv[0].startswith("-") else "command"
        raise UnknownOptionError(f"there is no {kind} {argv[0]}{_nearest(argv[0], COMMANDS)}")
    else:
        build, run = COMMANDS[argv[0]]
        parser = build()
        _refuse_unknown(argv[1:], parser)
        talk = _Talk()
        args = vars(parser.parse_intermixed_args(argv[1:]))
        gently = _stopping_gently(talk) if argv[0] in GENTLE else contextlib.nullcontext()
        with _escaped_log(), gently:
            for line in run(args, talk):
                print(printable(line))


def _fail(code: int, sentence: str) -> int:
    if os.environ.get("FASTSOFTMAX_DEBUG") == "1":
        for line in traceback.format_exc().splitlines():
            _Talk().say(line)
    _Talk().say(f"fastsoftmax: {sentence}")
    return code


class _Talk:
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


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
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
def _stopping_gently(talk: _Talk) -> Iterator[None]:
    """Let a first request to stop be noticed between rows, and a second one end all at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        if talk.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if talk.signal:
            raise SystemExit(128 + number)
        talk.signal = number

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
def _short_warnings() -> Iterator[None]:
    """Print warnings as sentences, without the line of code that gave them."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        _Talk().say(f"fastsoftmax: warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _escaped_log() -> Iterator[None]:
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


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = re.sub(r"^argument ([^:]*): ", r"\1: ", message)
        raise OptionError(f"{sentence}; see {self.prog} --help")


def _parser(command: str, description: str, example: str) -> _Parser:
    parser = _Parser(
        prog=f"fastsoftmax {command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastsoftmax {__version__}")
    return parser


def _train_parser() -> _Parser:
    parser = _parser(
        "train",
        "Learn a model from data with a column of classes, and say how it went.",
        "fastsoftmax train data/*.parquet --target label -o model.safetensors --epochs 5",
    )
    _add_training(parser, _add_option)
    return parser


def _sweep_parser() -> _Parser:
    parser = _parser(
        "sweep",
        "Train a model of each combination of options, over one read of the data, and rank them."
        "\nOptions that say so take several values, separated by commas.",
        "fastsoftmax sweep data/*.parquet --target label -o best.safetensors --l2 0,1e-5,1e-4",
    )
    _add_training(parser, _add_swept)
    parser.add_argument(
        "--no-halve", action="store_true", help="train all settings to the end (default: the worse"
        " half is given up now and then)",
    )  # fmt: skip
    parser.add_argument(
        "--all", metavar="FOLDER", help="write all models that were trained to the end there, too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_training(parser: _Parser, add_option: Callable[[Any, Any], None]) -> None:
    """Add what is trained on, where the model goes, and the options."""
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--target", required=True, metavar="COL", help="the column of classes")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL", help="the file to write")
    _add_columns(parser, "--features", "the feature columns; default all but target and weight")
    parser.add_argument("--weight", metavar="COL", help="the column of sample weights")
    _add_columns(parser, "--categorical", "columns whose values are categories")
    _add_columns(parser, "--classes", "the classes there are; default those found in the target")
    parser.add_argument(
        "--validation",
        action="append",
        metavar="DATA",
        help="data to evaluate after each epoch; may be given several times",
    )
    parser.add_argument("--init", metavar="MODEL", help="a model to start from instead of zeros")
    options = parser.add_argument_group("options of the run")
    for field in OPTIONS.values():
        add_option(options, field)
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", help="no progress on stderr")
    talk.add_argument("--verbose", action="store_true", help="say more on stderr")


def _evaluate_parser() -> _Parser:
    parser = _parser(
        "evaluate",
        "Measure a model on rows whose classes are known.",
        "fastsoftmax evaluate model.safetensors test.parquet",
    )
    _add_known_rows(parser)
    parser.add_argument(
        "--top-k",
        type=_whole,
        metavar="N",
        help="count a row as right where its class is among the N most probable, too"
        " (default 5 where there are more classes)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _calibrate_parser() -> _Parser:
    parser = _parser(
        "calibrate",
        "Find the temperature at which a model's probabilities fit rows that it was not trained on,"
        "\nand write the model at that temperature.",
        "fastsoftmax calibrate model.safetensors validation.parquet -o calibrated.safetensors",
    )
    _add_known_rows(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the file to write")
    return parser


def _predict_parser() -> _Parser:
    parser = _parser(
        "predict",
        "Write a class and its probability for each row, in order.",
        "fastsoftmax predict model.safetensors new.parquet -o predictions.parquet --keep id",
    )
    parser.add_argument("model", metavar="MODEL", help="the model's file")
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the file to write: .parquet, or .arrow or .feather",
    )
    parser.add_argument("--proba", action="store_true", help="write all probabilities too")
    parser.add_argument(
        "--top-k", type=_whole, metavar="N", help="write the N most probable classes"
    )
    _add_columns(parser, "--keep", "columns of the data to write beside the predictions")
    parser.add_argument("--quiet", action="store_true", help="no talk on stderr")
    return parser


def _pack_parser() -> _Parser:
    parser = _parser(
        "pack",
        "Rewrite data into the layout that reads fastest; all commands read it like any other.",
        "fastsoftmax pack data/*.parquet --target label -o packed.parquet --dtype float16",
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--target", metavar="COL", help="the column of classes")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the file to write: .parquet, or .arrow or .feather",
    )
    _add_columns(parser, "--features", "the columns to pack; default all but those beside them")
    parser.add_argument("--weight", metavar="COL", help="the column of sample weights")
    _add_columns(parser, "--keep", "columns to write beside the features, as they are")
    parser.add_argument(
        "--dtype", help="of the packed numbers; default the narrowest that loses nothing"
    )
    parser.add_argument("--memory", default="1GB", help="bytes that may be held (default 1GB)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _inspect_parser() -> _Parser:
    parser = _parser(
        "inspect",
        "Say what is in a model or a data set.",
        "fastsoftmax inspect data/*.parquet --target label",
    )
    parser.add_argument(
        "data", nargs="+", metavar="MODEL|DATA", help=f"a model's file, or {DATA_HELP}"
    )
    parser.add_argument("--target", metavar="COL", help="count the classes in this column of data")
    parser.add_argument(
        "--top", type=_whole, metavar="N", help="list N weights of a model's classes (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _warmup_parser() -> _Parser:
    parser = _parser(
        "warmup",
        "Compile everything now, so that later runs start at once; what is kept stays.",
        "fastsoftmax warmup --quiet",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def _add_known_rows(parser: argparse.ArgumentParser) -> None:
    """Add a model, and rows whose classes are known."""
    parser.add_argument("model", metavar="MODEL", help="the model's file")
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--target", metavar="COL", help="the classes; default as in training")
    parser.add_argument("--weight", metavar="COL", help="the column of sample weights")


def _add_columns(parser: argparse.ArgumentParser, flag: str, text: str) -> None:
    parser.add_argument(flag, type=_names, metavar="A,B", help=f"{text}; separated by commas")


def _add_option(parser: Any, field: Any) -> None:
    """Add an option of TrainOptions; only those given reach `train`."""
    if field.name == "verbose":  # has its place beside --quiet
        return
    flag = f"--{field.name.replace('_', '-')}"
    default = "" if field.default is None else f" (default {field.default})"
    text = (field.metadata["help"] + default).replace("%", "%%")
    kind = field.type.removesuffix(" | None").removesuffix(" | str")
    if kind == "bool":
        action = argparse.BooleanOptionalAction
        parser.add_argument(flag, action=action, default=argparse.SUPPRESS, help=text)
        return
    kinds: dict[str, tuple[Callable[[str], Any], str]] = {
        "int": (_whole, "N"),
        "float": (_number, "X"),
        "Any": (_class_weights, "A=X,B=Y"),
    }
    convert, metavar = kinds.get(kind, (str, field.name.upper()))
    if field.default == "auto" and kind in kinds:
        convert = _or_auto(convert)
    parser.add_argument(flag, type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _add_swept(parser: Any, field: Any) -> None:
    """Add an option of TrainOptions that takes a list, where settings may differ in it."""
    before = len(parser._group_actions)
    _add_option(parser, field)
    for action in parser._group_actions[before:]:
        if field.name in SWEPT and not isinstance(action, argparse.BooleanOptionalAction):
            action.type = _several(action.type, ";" if field.name == "class_weight" else ",")
            action.help += "; several: separated by " + ("semicolons" if field.name ==
                "class_weight" else "commas")  # fmt: skip


def _several(convert: Callable[[str], Any], separator: str) -> Callable[[str], Any]:
    """Return what converts a list of values, and one value to itself."""

    def converted(text: str) -> Any:
        values = [convert(word) for word in text.split(separator)]
        return values if len(values) > 1 else values[0]

    return converted


def _or_auto(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: text if text == "auto" else convert(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _class_weights(text: str) -> str | dict[str, float]:
    """Return the factors that a list as a=2,b=0.5 gives, or a word such as balanced."""
    if "=" not in text:
        return text
    pairs = (word.rpartition("=") for word in _names(text))
    return {label: _number(factor) for label, _, factor in pairs}


def _names(text: str) -> list[str]:
    """Return what a comma-separated list names; a name with a comma in it is quoted."""
    try:
        return next(csv.reader([text], skipinitialspace=True))
    except csv.Error:
        message = f"{text!r} is no list: put names with line breaks in double quotes"
        raise argparse.ArgumentTypeError(message) from None


def _refuse_unknown(argv: list[str], parser: _Parser) -> None:
    """Name the nearest option there is, before argparse complains about something else."""
    known = list(parser._option_string_actions)
    given = argv[: argv.index("--")] if "--" in argv else argv
    for word in given:
        flag = word.split("=")[0]
        if flag.startswith("--") and flag not in known:
            raise UnknownOptionError(f"there is no option {flag}{_nearest(flag, known)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    bare = {name.lstrip("-"): name for name in known}  # dashes would make all options alike
    nearest = difflib.get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.5)
    return f"; did you mean {bare[nearest[0]]}?" if nearest else "; see --help"


GENTLE = ("train", "sweep")  # commands that end between rows when they are told to stop
COMMANDS = {
    "train": (_train_parser, commands.train),
    "sweep": (_sweep_parser, commands.sweep),
    "evaluate": (_evaluate_parser, commands.evaluate),
    "calibrate": (_calibrate_parser, commands.calibrate),
    "predict": (_predict_parser, commands.predict),
    "pack": (_pack_parser, commands.pack),
    "inspect": (_inspect_parser, commands.inspect),
    "warmup": (_warmup_parser, commands.warmup),
}

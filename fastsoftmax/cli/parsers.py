"""The only place that says which arguments the commands take, and what --help says: argparse."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from fastsoftmax.cli.config import read_config
from fastsoftmax.cli.console import print_results
from fastsoftmax.cli.words import as_text, assigned, factors, listed, split_settings
from fastsoftmax.errors import OptionError, UnknownOptionError
from fastsoftmax.options import OPTIONS, SWEPT
from fastsoftmax.version import __version__

NOT_IN_FILES = ("help", "version", "config", "dry_run", "json")
DATA_HELP = (
    "files (Parquet, Arrow, CSV, JSON lines, ...), folders or globs: one data set; - is stdin"
)
Read = TypeVar("Read")
OVERVIEW = """\
usage: fastsoftmax COMMAND ...

Softmax regression on more rows than fit in memory, straight from Parquet and Arrow.

  fastsoftmax train           learn a model from data with a column of classes
  fastsoftmax sweep           learn a model of each of many settings over one read of the data
  fastsoftmax cross-validate  measure models on rows that each has not seen
  fastsoftmax audit           list the rows whose classes are likely wrong
  fastsoftmax learning-curve  say what more rows would gain
  fastsoftmax evaluate        measure a model on rows whose classes are known
  fastsoftmax report          write a page of HTML on how a model does on such rows, and why
  fastsoftmax calibrate       make a model as sure as validation data show it may be
  fastsoftmax predict         write a class and its probability for each row
  fastsoftmax export          write a model for other programs: ONNX, SQL, a table of weights
  fastsoftmax pack            rewrite data into the layout that reads fastest
  fastsoftmax convert         rewrite CSV, JSON lines, NumPy's files and others as Parquet
  fastsoftmax inspect         say what is in a model or a data set
  fastsoftmax warmup          compile everything now, so that later runs start at once

Each has its own --help with an example. `fastsoftmax --version` prints the version.
"""


class CommandParser(argparse.ArgumentParser):
    """A parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = re.sub(r"^argument ([^:]*): ", r"\1: ", message)
        raise OptionError(f"{sentence}; see {self.prog} --help")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None:  # argparse loses a value that is `--`
            return self._get_value(action, arg_strings[0])
        return super()._get_values(action, arg_strings)

    def _print_message(self, message: str, file: Any = None) -> None:
        print_results(message.splitlines())


def _parser(command: str, description: str, example: str) -> CommandParser:
    parser = CommandParser(
        prog=f"fastsoftmax {command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fastsoftmax {__version__}")
    return parser


def train_parser() -> CommandParser:
    """Return what `fastsoftmax train` takes."""
    parser = _parser(
        "train",
        "Learn a model from data with a column of classes, and say how it went.",
        "fastsoftmax train data/*.parquet --target label -o model.safetensors --epochs 5",
    )
    _add_training(parser, _add_option)
    parser.add_argument(
        "--dry-run", action="store_true", help="train nothing: say what the run would take, and"
        " print the file for --config that reproduces it",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="of --dry-run: print one JSON object")
    return parser


def sweep_parser() -> CommandParser:
    """Return what `fastsoftmax sweep` takes."""
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


def _add_training(parser: CommandParser, add_option: Callable[[Any, Any], None]) -> None:
    """Add what is trained on, where the model goes, and the options."""
    _add_trained_rows(parser)
    parser.add_argument("-o", "--output", required=True, metavar="MODEL", help="the file to write")
    parser.add_argument(
        "--validation",
        action="append",
        metavar="DATA",
        help="data to evaluate after each epoch; may be given several times",
    )
    parser.add_argument("--init", metavar="MODEL", help="a model to start from instead of zeros")
    _add_options(parser, add_option)


def _add_trained_rows(parser: CommandParser) -> None:
    """Add the rows that are trained on, and their columns."""
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    text = "the column of classes; default of svmlight files their own"
    _add_column(parser, "--target", text, required=True)
    _add_columns(parser, "--features", "the feature columns; default all but target and weight")
    _add_column(parser, "--weight", "the column of sample weights")
    _add_columns(parser, "--categorical", "columns whose values are categories")
    _add_columns(parser, "--classes", "the classes there are; default those found in the target")


def _add_options(parser: CommandParser, add_option: Callable[[Any, Any], None]) -> None:
    """Add the options of a run, and the file that gives them."""
    parser.add_argument(
        "--config", metavar="TOML", help="a file of these arguments; the command line wins over it"
    )
    options = parser.add_argument_group("options of the run")
    for field in OPTIONS.values():
        add_option(options, field)
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument("--quiet", action="store_true", help="no progress on stderr")
    talk.add_argument("--verbose", action="store_true", help="say more on stderr")


def cross_validate_parser() -> CommandParser:
    """Return what `fastsoftmax cross-validate` takes."""
    parser = _parser(
        "cross-validate",
        "Train a model without each of some parts of the rows, and judge it by that part.",
        "fastsoftmax cross-validate data/*.parquet --target label -o unseen.parquet",
    )
    _add_folds(parser, "the file for each row's probabilities by a model that has not seen it")
    return parser


def audit_parser() -> CommandParser:
    """Return what `fastsoftmax audit` takes."""
    parser = _parser(
        "audit",
        "List the rows whose classes are likely wrong, the worst first.",
        "fastsoftmax audit data/*.parquet --target label -o suspects.csv",
    )
    _add_folds(parser, "the file for all such rows")
    return parser


def learning_curve_parser() -> CommandParser:
    """Return what `fastsoftmax learning-curve` takes."""
    parser = _parser(
        "learning-curve",
        "Train models on fractions of the rows, and say what twice the rows would gain.",
        "fastsoftmax learning-curve data/*.parquet --target label",
    )
    _add_trained_rows(parser)
    parser.add_argument(
        "--fractions", type=_fractions, metavar="X,Y,Z", help="of the rows that are trained on",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_options(parser, _add_option)
    return parser


def _add_folds(parser: CommandParser, written: str) -> None:
    """Add the rows that are dealt to folds, and what becomes of them."""
    _add_trained_rows(parser)
    parser.add_argument("--folds", type=_whole, default=5, metavar="N", help="parts (default 5)")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=f"{written}: .parquet, .arrow, .csv or .jsonl"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_options(parser, _add_option)


def evaluate_parser() -> CommandParser:
    """Return what `fastsoftmax evaluate` takes."""
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
    _add_who(parser)
    return parser


def report_parser() -> CommandParser:
    """Return what `fastsoftmax report` takes."""
    parser = _parser(
        "report",
        "Write a page of HTML on how a model does on rows whose classes are known, and why.",
        "fastsoftmax report model.safetensors test.parquet -o report.html",
    )
    _add_known_rows(parser)
    parser.add_argument("-o", "--output", required=True, metavar="PAGE", help="the file to write")
    return parser


def calibrate_parser() -> CommandParser:
    """Return what `fastsoftmax calibrate` takes."""
    parser = _parser(
        "calibrate",
        "Find the temperature at which a model's probabilities fit rows that it was not trained on,"
        "\nand write the model at that temperature.",
        "fastsoftmax calibrate model.safetensors validation.parquet -o calibrated.safetensors",
    )
    _add_known_rows(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the file to write")
    _add_who(parser)
    return parser


def predict_parser() -> CommandParser:
    """Return what `fastsoftmax predict` takes."""
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
        help="the file to write: .parquet, .arrow, .csv or .jsonl; - is stdout; FOLDER/ gets a file"
        " of each shard",
    )
    parser.add_argument(
        "--format",
        help="parquet, arrow, csv or jsonl; default what the name ends in, csv on stdout",
    )
    parser.add_argument("--proba", action="store_true", help="write all probabilities too")
    parser.add_argument(
        "--top-k", type=_whole, metavar="N", help="write the N most probable classes"
    )
    _add_columns(parser, "--keep", "columns of the data to write beside the predictions")
    parser.add_argument("--quiet", action="store_true", help="no talk on stderr")
    _add_who(parser)
    return parser


def export_parser() -> CommandParser:
    """Return what `fastsoftmax export` takes."""
    parser = _parser(
        "export",
        "Write a model for other programs: a graph, a SELECT, or its weights in raw units.",
        "fastsoftmax export model.safetensors -o model.onnx",
    )
    parser.add_argument("model", metavar="MODEL", help="the model's file")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="the file to write: .onnx, .sql, .parquet, .csv, .json or .npz",
    )
    parser.add_argument("--format", help="one of these, where the name ends otherwise")
    return parser


def pack_parser() -> CommandParser:
    """Return what `fastsoftmax pack` takes."""
    parser = _parser(
        "pack",
        "Rewrite data into the layout that reads fastest; all commands read it like any other.",
        "fastsoftmax pack data/*.parquet --target label -o packed.parquet --dtype float16",
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    _add_column(parser, "--target", "the column of classes")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="the file to write: .parquet, or .arrow or .feather",
    )
    _add_columns(parser, "--features", "the columns to pack; default all but those beside them")
    _add_column(parser, "--weight", "the column of sample weights")
    _add_columns(parser, "--keep", "columns to write beside the features, as they are")
    parser.add_argument(
        "--dtype", help="of the packed numbers; default the narrowest that loses nothing"
    )
    parser.add_argument("--memory", default="1GB", help="bytes that may be held (default 1GB)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def convert_parser() -> CommandParser:
    """Return what `fastsoftmax convert` takes."""
    parser = _parser(
        "convert",
        "Rewrite data of any kind as Parquet, with the columns as they are.",
        "fastsoftmax convert 'customers-*.csv.gz' -o customers.parquet --types zip=string",
    )
    parser.add_argument("data", nargs="+", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUT",
        help="the file to write: .parquet, or .arrow or .feather",
    )  # fmt: skip
    parser.add_argument(
        "--types", type=types_of_columns, metavar="A=TYPE,B=TYPE",
        help="types of columns of CSV and JSON lines: string, int64, float64 or bool",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def inspect_parser() -> CommandParser:
    """Return what `fastsoftmax inspect` takes."""
    parser = _parser(
        "inspect",
        "Say what is in a model or a data set.",
        "fastsoftmax inspect data/*.parquet --target label",
    )
    parser.add_argument(
        "data", nargs="+", metavar="MODEL|DATA", help=f"a model's file, or {DATA_HELP}"
    )
    _add_column(parser, "--target", "count the classes in this column of data, and look for leaks")
    parser.add_argument(
        "--validation", action="append", metavar="DATA",
        help="further data: which rows are in both, and which columns drift",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=_whole, metavar="N", help="list N weights of a model's classes (default 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def warmup_parser() -> CommandParser:
    """Return what `fastsoftmax warmup` takes."""
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
    _add_column(parser, "--target", "the classes; default as in training")
    _add_column(parser, "--weight", "the column of sample weights")


def _add_who(parser: argparse.ArgumentParser) -> None:
    """Add into how many shards rows are dealt, and who works on these."""
    for name in ("shards", "workers"):
        _add_option(parser, OPTIONS[name])


def _add_column(
    parser: argparse.ArgumentParser, flag: str, text: str, *, required: bool = False
) -> None:
    parser.add_argument(flag, type=as_text, required=required, metavar="COL", help=text)


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
        "int | Any": (_workers, "N|ADDRESS"),
    }
    if field.name == "types":
        kinds["Any"] = (types_of_columns, "A=TYPE,B=TYPE")
    if field.metadata.get("names"):
        kinds[kind] = _names, "A,B"
    if field.name in ("sparse", "width"):
        kinds["Any"] = (str, "A,X=I:V" if field.name == "sparse" else "N|A=X,B=Y")
    convert, metavar = kinds.get(kind, (str, field.name.upper()))
    if " | str" in field.type and kind in kinds:
        convert = _or_auto(convert)
    parser.add_argument(flag, type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _add_swept(parser: Any, field: Any) -> None:
    """Add an option of TrainOptions that takes a list, where settings may differ in it."""
    before = len(parser._group_actions)
    _add_option(parser, field)
    for action in parser._group_actions[before:]:
        if field.name in SWEPT and not isinstance(action, argparse.BooleanOptionalAction):
            split = split_settings if field.name == "class_weight" else _split_values
            action.type = _several(action.type, split)
            action.help += "; several: separated by " + ("semicolons" if field.name ==
                "class_weight" else "commas")  # fmt: skip


def _split_values(text: str) -> list[str]:
    return text.split(",")


def _several(
    convert: Callable[[str], Any], split: Callable[[str], list[str]]
) -> Callable[[str], Any]:
    """Return what converts a list of values, and one value to itself."""

    def converted(text: str) -> Any:
        values = [convert(word) for word in split(text)]
        return values if len(values) > 1 else values[0]

    return converted


def _or_auto(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: text if text == "auto" else convert(text)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _fractions(text: str) -> list[float]:
    return [_number(word) for word in text.split(",")]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _workers(text: str) -> int | str:
    """Return a number of processes, or an address."""
    return text if "://" in text else _whole(text)


def _class_weights(text: str) -> str | dict[str, float]:
    """Return the factors that a list as a=2,b=0.5 gives, or a word such as balanced."""
    return _worded(factors, text) if "=" in text else text


def types_of_columns(text: str) -> dict[str, str]:
    """Return the types that a list as a=string,b=float64 gives columns."""
    return _worded(assigned, text)


def _names(text: str) -> list[str]:
    """Return what a comma-separated list names; a name with a comma in it is quoted."""
    return _worded(listed, text)


def _worded(read: Callable[[str], Read], text: str) -> Read:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parsed(parser: CommandParser, argv: list[str]) -> dict[str, Any]:
    """Return the arguments of a command by name; raise OptionError for those it does not take."""
    words = _arranged(parser, argv)
    if "--dry-run" in words:  # which writes no model
        parser._option_string_actions["--output"].required = False
    for word in words:
        if word.startswith("--config="):
            _take_config(parser, word.removeprefix("--config="), words)
    target = parser._option_string_actions.get("--target")
    if target is not None and target.required:
        target.required = not _have_labels(parser, words)
    return vars(parser.parse_args(words))


def _have_labels(parser: CommandParser, words: list[str]) -> bool:
    """Return whether the data have labels of their own, where no column of them is named."""
    if any(word.startswith("--target=") for word in words):
        return False
    from fastsoftmax.data.formats.recognise import labels_itself

    data = [word for word in words if not word.startswith("-")]
    return labels_itself(data or parser.get_default("data") or [])


def _take_config(parser: CommandParser, path: str, words: list[str]) -> None:
    """Let what a file says be the defaults, unless a word of the command line says otherwise."""
    actions = {action.dest: action for action in parser._actions}
    known = [name for name in actions if name not in NOT_IN_FILES]
    values = read_config(path, known, nearest)
    said = {word.split("=")[0] for word in words}
    for name, beside in (("validation", "--validation"), ("verbose", "--quiet")):
        if beside in said:  # which argparse would add to, or take beside the file's
            values.pop(name, None)
    if "--verbose" in said:
        values.pop("quiet", None)
    for name in values:
        actions[name].required = False
        if not actions[name].option_strings:
            actions[name].nargs = "*"
    parser.set_defaults(**values)


def _arranged(parser: CommandParser, argv: list[str]) -> list[str]:
    """Return the options, each in one word with its value, and after them all other words.

    argparse takes neither a value that begins with a dash as a word of its own, nor data on both
    sides of an option. After a `--` come paths: one that begins with a dash gets its folder.
    """
    actions = parser._option_string_actions
    options: list[str] = []
    others: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            others += (f"./{path}" if path.startswith("-") else path for path in words)
        elif word in actions:
            takes_value = actions[word].nargs is None
            options.append(f"{word}={_value(word, words, actions)}" if takes_value else word)
        elif word.startswith("-") and word != "-":
            if word.startswith("--") and word.split("=")[0] not in actions:
                flag = word.split("=")[0]
                raise UnknownOptionError(f"there is no option {flag}{nearest(flag, actions)}")
            options.append(word)
        else:
            others.append(word)
    return [*options, *others]


def _value(flag: str, words: Iterator[str], known: Iterable[str]) -> str:
    """Return the word after an option that takes a value, unless it is meant as another option."""
    word = next(words, None)
    if word is None:
        raise OptionError(f"{flag} has no value; see --help")
    name = word.split("=")[0]
    written = f"a value that is called so is written {flag}={word}"
    if name in known or word == "--":
        raise OptionError(f"{flag} has no value before {name}; {written}")
    if word.startswith("--") and difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        raise UnknownOptionError(f"there is no option {name}{nearest(name, known)} {written}")
    return word


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about a word that is not known: which one may be meant."""
    bare = {name.lstrip("-"): name for name in known}  # dashes would make all options alike
    found = difflib.get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.5)
    return f"; did you mean {bare[found[0]]}?" if found else "; see --help"

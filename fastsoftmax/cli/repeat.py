"""The only place that writes the line that repeats a run, which a shell runs with the same result.

POSIX, Shell Command Language, section 2.2, says what quotes do; printf's %b reads the escapes.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from fastsoftmax.cli.words import as_factors, as_list
from fastsoftmax.options import TrainOptions

# Where a run is kept and logged does not shape its model, and a folder takes one run alone.
LEFT_OUT = ("checkpoint", "checkpoint_every", "resume", "log_json")
PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"\\'!")  # a shell may read ! in double quotes


def same_run(args: dict[str, Any], options: TrainOptions) -> str:
    """Return the line that repeats a run of these arguments."""
    words = ["fastsoftmax", "train", *args["data"]]
    for name in ("target", "features", "weight", "categorical", "classes", "init"):
        value = args[name]
        if value is not None:
            text = value if isinstance(value, str) else as_list(value)
            words += _flag(f"--{name}", text)
    for path in args["validation"] or []:
        words += _flag("--validation", path)
    words += _flag("-o", args["output"])
    for name, value in options.given().items():
        if name not in LEFT_OUT:
            words += _option(name.replace("_", "-"), value)
    return shell_line(words)


def same_config(args: dict[str, Any], options: TrainOptions) -> dict[str, Any]:
    """Return the arguments that repeat a run by name, those left out that are as by default."""
    named = ("data", "target", "features", "weight", "categorical", "classes", "validation", "init")
    values = {name: args[name] for name in (*named, "output") if args[name] is not None}
    given = options.given().items()
    return values | {name: value for name, value in given if name not in LEFT_OUT}


def shell_line(words: list[str]) -> str:
    """Return what a shell reads as these words: one line of what can be shown and copied."""
    line = shlex.join(words)
    if line.isprintable() and _can_be_shown(line):
        return line
    escaped = "".join(
        chr(byte) if byte in PLAIN else f"\\0{byte:03o}"
        for byte in line.encode("utf-8", "surrogateescape")
    )
    return f"eval \"$(printf '%b' '{escaped}')\""


def _can_be_shown(text: str) -> bool:
    """Return whether stdout has all letters of a text; it would spell out the others."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _flag(name: str, value: str) -> list[str]:
    """Return an option and its value; a value that begins with a dash stands in the same word."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, tuple):
        value = as_list(value)
    return _flag(f"--{name}", as_factors(value) if isinstance(value, dict) else str(value))

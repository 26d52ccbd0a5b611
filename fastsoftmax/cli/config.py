"""The only place that reads and writes the TOML of a run's arguments, which `--config` names.

Its keys are the long options of the command, with dashes or underscores, and `data`. Paths are
those of the command line: relative to the folder where it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from fastsoftmax.errors import OptionError, UnknownOptionError

LISTS = ("data", "validation", "features", "categorical", "classes", "text", "hashed")
TEXTS = ("target", "weight", "output", "init")


def read_config(
    path: str, known: Collection[str], nearest: Callable[[str, Collection[str]], str]
) -> dict[str, Any]:
    """Return the arguments in a file by name; raise OptionError, with the key, where one is wrong.

    known: the names there are. nearest: ends a sentence about a name that is not there.
    """
    import tomllib  # which --help does not need

    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise OptionError(f"{path}: it cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: it is no TOML: {error}") from None
    values = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UnknownOptionError(f"{path}: there is no option {key}{nearest(name, known)}")
        values[name] = _as_given(path, key, name, value)
    return values


def _as_given(path: str, key: str, name: str, value: Any) -> Any:
    """Return a value as the command line would give it."""
    if name in LISTS:
        return [_word(path, key, each) for each in (value if isinstance(value, list) else [value])]
    if name in TEXTS and not isinstance(value, str):
        raise OptionError(f"{path}: {key} must be text, got {value!r}")
    return value


def _word(path: str, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise OptionError(f"{path}: {key} must be a list of words, got {value!r}")
    return str(value)


def as_toml(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a file that `read_config` reads as these values, None left out."""
    for name, value in values.items():
        if value is not None:
            yield f"{name} = {_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the one control character that JSON lets through.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_written(str(name))} = {_written(each)}" for name, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    return repr(value)

"""The only place that sees to it that a trained model is written, elsewhere if need be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastsoftmax.errors import OptionError, SaveError
from fastsoftmax.files import check_writable

if TYPE_CHECKING:
    from fastsoftmax.model.model import Model


def make_folder(path: str) -> None:
    """Make the folder that models are to be written to; raise OptionError where that cannot be."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"the output folder {path} cannot be made: {error.strerror}; give another"
        ) from None
    check_writable(os.path.join(path, "1.safetensors"))


def save(model: Model, path: str) -> None:
    """Write a model, to a second place where the first fails: it may be the work of days."""
    try:
        model.save(path)
    except SaveError as error:
        second = _second_place(model, path)
        if second is None:
            raise
        raise SaveError(f"{error} The model was saved to {second} instead.") from error


def _second_place(model: Model, path: str) -> str | None:
    """Write a model to a folder of its own among the temporary files; return where, if it can."""
    import tempfile

    try:
        # A name that nobody else can have taken, in a folder that nobody else can write.
        second = os.path.join(tempfile.mkdtemp(prefix="fastsoftmax-"), os.path.basename(path))
    except OSError:
        return None
    try:
        model.save(second)
    except SaveError:
        os.rmdir(os.path.dirname(second))
        return None
    return second

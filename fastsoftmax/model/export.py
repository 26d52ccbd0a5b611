"""The only place that says as what a model can be exported, and writes it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastsoftmax.errors import OptionError
from fastsoftmax.files import check_writable, write_file
from fastsoftmax.model import coefficients
from fastsoftmax.model.parameters import Parameters

if TYPE_CHECKING:
    from fastsoftmax.model.model import Model


def export(model: Model, path: str | os.PathLike[str], format: str | None = None) -> None:  # noqa: A002
    """Write `model` to `path` for other programs: onnx, sql, parquet, csv, json or npz.

    format: by default what the name of `path` ends in. onnx: a graph that takes the columns by
    their names, or `X`, and gives `label` and `probabilities`. sql: one SELECT of `label`, `p_0`,
    `p_1`, ... for the rows of a table `data`. The others hold the weights in raw units.
    """
    make = FORMATS[format_of(path, format)]
    check_writable(path)
    write_file(path, [make(model.parameters)])


def format_of(path: str | os.PathLike[str], given: str | None = None) -> str:
    """Return the format asked for, or that of the name's end; raise OptionError for others."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    chosen = suffix if given is None else given
    if chosen in FORMATS:
        return chosen
    listed = ", ".join(FORMATS)
    if given is not None:
        raise OptionError(f"format must be one of {listed}, got {given}")
    raise OptionError(
        f"the output {os.fspath(path)} must end in one of .{listed.replace(', ', ', .')}, or format"
        " must say which it is"
    )


def _onnx(model: Parameters) -> bytes:
    _refuse_sparse(model, "onnx")
    from fastsoftmax.model.onnx import onnx_bytes

    return onnx_bytes(model)


def _sql(model: Parameters) -> bytes:
    _refuse_sparse(model, "sql")
    from fastsoftmax.model.sql import select_of

    return select_of(model).encode()


def _refuse_sparse(model: Parameters, kind: str) -> None:
    """Raise OptionError for a model of rows that no such program takes."""
    for column in model.columns or ():
        if column.sparse is not None or column.text is not None:
            what = "a text" if column.text is not None else "sparse"
            raise OptionError(
                f'format {kind} takes numbers and categories alone, and column "{column.name}" is'
                f" {what}: export the weights, to parquet, csv, json or npz"
            )


def _parquet(model: Parameters) -> memoryview:
    from fastsoftmax.data.formats.whole import parquet_bytes

    return parquet_bytes(coefficients.table_of(model))


def _csv(model: Parameters) -> memoryview:
    from fastsoftmax.data.formats.whole import csv_bytes

    return csv_bytes(coefficients.table_of(model))


FORMATS: dict[str, Callable[[Parameters], bytes | memoryview]] = {
    "onnx": _onnx,
    "sql": _sql,
    "parquet": _parquet,
    "csv": _csv,
    "json": coefficients.json_bytes,
    "npz": coefficients.npz_bytes,
}

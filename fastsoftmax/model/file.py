"""The only place that knows how a model lies in a file: safetensors with JSON metadata.

Nothing that depends on clock, machine or path is written, so the same model is the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from reprlib import repr as brief  # what a damaged file says is of any length
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.errors import ModelFileError, SaveError
from fastsoftmax.files import write_file
from fastsoftmax.labels import KINDS, Classes
from fastsoftmax.model.model import Model
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors, parse_json
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.options import is_count

FORMAT = "fastsoftmax"
VERSION = "1"
NULLS = ("error", "zero", "mean", "drop")


def save_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to `path`; raise SaveError if it has non-finite weights, or on a failure."""
    if not _are_finite(model.weights, model.bias, model.conditioning, model.deviations):
        raise SaveError(
            f"the model has weights that are not finite; {os.fspath(path)} is not written."
        )
    try:
        text = json.dumps(_describe(model), sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise SaveError(f"the model's history or record is not JSON: {error}.") from error
    tensors = {"weights": model.weights, "bias": model.bias}
    if model.conditioning is not None:
        tensors |= {"centre": model.conditioning.centre, "scale": model.conditioning.scale}
    metadata = {"format": FORMAT, "format_version": VERSION, "model": text}
    write_file(path, encode_tensors(tensors, metadata))


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model from `path`; raise ModelFileError if anything in the file contradicts itself."""
    try:
        tensors, metadata = decode_tensors(path)
        return _assemble(tensors, metadata)
    except _Unusable as error:
        raise ModelFileError(f"{os.fspath(path)} is not a usable model file: {error}.") from None


def looks_like_model(path: str | os.PathLike[str]) -> bool:
    """Say whether `path` is a file that begins as a model file does."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return start[8:] == b"{" and not start.startswith((b"PAR1", b"ARROW1"))


class _Unusable(Exception):
    """Why a file that was read does not make a model."""


def _describe(model: Model) -> dict[str, Any]:
    columns = model.columns
    return {
        "classes": {"kind": model.classes_.kind, "values": list(model.classes_.values)},
        "columns": columns and [_describe_column(c) for c in columns],
        "history": model.history,
        "record": model.record,
    }


def _describe_column(column: Column) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "width": column.width}
    if column.categories is not None:
        told["categories"] = {
            "kind": column.categories.kind,
            "values": list(column.categories.values),
        }
    if column.fill is not None:
        told["fill"] = list(column.fill)
    if column.indicator:
        told["indicator"] = True
    return told


def _assemble(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> Model:
    _require(metadata.get("format") == FORMAT, "it was not written by fastsoftmax")
    version = metadata.get("format_version")
    _require(
        version == VERSION,
        f"it has format version {brief(version)}, and this fastsoftmax reads version {VERSION}",
    )
    try:
        told = parse_json(metadata.get("model", ""))
    except ValueError as error:
        raise _Unusable(f"its description is not JSON ({error})") from None
    told = _object(
        told, {"classes", "columns", "history", "record"}, "its description is incomplete"
    )
    classes = _read_classes(told["classes"])
    conditioning = _read_conditioning(tensors)
    weights, bias = _read_weights(tensors, len(classes))
    if conditioning is not None:
        fits = conditioning.centre.shape == conditioning.scale.shape == weights.shape[1:]
        _require(fits, "its centre and scale are not of the size of its weights")
    columns = _read_columns(told["columns"], weights.shape[1])
    history = _list(told["history"], _is_epoch, "its history is malformed")
    record = _read_record(told["record"], *weights.shape)
    model = Model(weights, bias, classes, columns, history, record, conditioning)
    finite = _are_finite(weights, bias, conditioning, model.deviations)
    _require(finite, "it has weights that are not finite")
    return model


def _are_finite(
    W: np.ndarray, b: np.ndarray, conditioning: Scaling | None, deviations: np.ndarray | None
) -> bool:
    """Return whether weights are finite, also in raw units and per standard deviation."""
    # Bounds (d,) of the sizes: raw weights in float64 would need twice the memory of the model.
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.maximum(W.max(axis=0), -W.min(axis=0)).astype(np.float64)
        sums = [largest.sum(), np.abs(b).sum(dtype=np.float64)]
        if conditioning is not None:
            largest = largest * conditioning.scale
            sums.append((largest * np.abs(conditioning.centre)).sum())
        if deviations is not None:
            sums.append((largest * deviations).sum())
        return bool(np.isfinite(sum(sums) + largest.sum()))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Unusable(otherwise)


def _object(told: object, keys: set[str], otherwise: str) -> dict[str, Any]:
    if not isinstance(told, dict) or set(told) != keys:
        raise _Unusable(otherwise)
    return told


def _list(told: object, fits: Callable[[Any], bool], otherwise: str) -> list[Any]:
    if not isinstance(told, list) or not all(map(fits, told)):
        raise _Unusable(otherwise)
    return told


def _read_conditioning(tensors: dict[str, np.ndarray]) -> Scaling | None:
    """Take centre and scale out of the tensors, where they are there."""
    if "centre" not in tensors and "scale" not in tensors:
        return None
    _require({"centre", "scale"} <= set(tensors), "it has a centre or a scale without the other")
    centre, scale = tensors.pop("centre"), tensors.pop("scale")
    _require(centre.dtype == scale.dtype == np.float64, "its centre and scale are not float64")
    finite = bool(np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all())
    _require(finite, "its centre and scale are not finite")
    return Scaling(centre.astype(np.float64), scale.astype(np.float64))


def _read_weights(tensors: dict[str, np.ndarray], K: int) -> tuple[np.ndarray, np.ndarray]:
    _require(set(tensors) == {"weights", "bias"}, "its tensors are not weights and bias")
    weights, bias = tensors["weights"], tensors["bias"]
    _require(weights.dtype == bias.dtype, "weights and bias differ in dtype")
    _require(weights.dtype.kind == "f", f"its weights are {weights.dtype}")
    _require(weights.ndim == 2 and weights.shape[1] > 0, "its weights are not a matrix")
    _require(weights.shape[0] == K, f"it has {K} classes but weights for {weights.shape[0]}")
    _require(bias.shape == (K,), f"it has {K} classes but a bias of shape {bias.shape}")
    native = weights.dtype.newbyteorder("=")
    return weights.astype(native, copy=False), bias.astype(native, copy=False)


def _read_classes(told: object) -> Classes:
    classes = _read_values(told, "classes")
    _require(len(classes) >= 2, "it has fewer than two classes")
    return classes


def _read_values(told: object, what: str) -> Classes:
    described = _object(told, {"kind", "values"}, f"its {what} are malformed")
    kind = described["kind"]
    _require(
        isinstance(kind, str) and kind in KINDS, f"its {what} are of no known kind: {brief(kind)}"
    )
    fits = partial(_fits, kind)
    values = _list(described["values"], fits, f"its {what} are not all of kind {kind}")
    order: Callable[[Any], Any] = str.encode if kind == "string" else int
    in_order = all(order(a) < order(b) for a, b in pairwise(values))
    _require(in_order, f"its {what} are not sorted and distinct")
    return Classes(kind, tuple(values))


def _fits(kind: str, value: object) -> bool:
    if kind == "string":
        return _is_text(value)
    if kind == "bool":
        return isinstance(value, bool)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    limits = np.iinfo(kind)
    return limits.min <= value <= limits.max


def _read_columns(told: object, d: int) -> tuple[Column, ...] | None:
    if told is None:
        return None
    listed = _list(told, _is_column, "its columns are malformed")
    columns = tuple(map(_read_column, listed))
    _require(len({c.name for c in columns}) == len(columns), "two of its columns have one name")
    width = sum(column.n_features for column in columns)
    _require(width == d, f"its columns hold {width} features but its weights are for {d}")
    return columns


def _read_column(told: dict[str, Any]) -> Column:
    categories = told.get("categories")
    if categories is not None:
        categories = _read_values(categories, "categories")
        _require(len(categories) > 0, "a column of it has no categories")
        _require(told["width"] is None, "a column of it holds lists of categories")
    fill = told.get("fill")
    if fill is not None:
        wanted = told["width"] or 1
        fits = isinstance(fill, list) and len(fill) == wanted and all(map(_is_finite, fill))
        _require(fits, "its columns are malformed")
        fill = tuple(map(float, fill))
    indicator = told.get("indicator", False)
    _require(isinstance(indicator, bool), "its columns are malformed")
    return Column(told["name"], told["width"], categories, fill, indicator)


def _is_column(told: object) -> bool:
    optional = {"categories", "fill", "indicator"}
    if not isinstance(told, dict) or set(told) - optional != {"name", "width"}:
        return False
    width = told["width"]
    return _is_text(told["name"]) and (width is None or is_count(width, 1))


def _is_epoch(told: object) -> bool:
    if not isinstance(told, dict) or not all(v is None or _is_number(v) for v in told.values()):
        return False
    said = {key for key, value in told.items() if value is not None}
    validated = "validation_log_loss" not in said or "validation_accuracy" in said
    return validated and said >= {"epoch", "rows", "log_loss", "accuracy"}


def _read_record(told: object, K: int, d: int) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise _Unusable("its record is malformed")
    for key in ("target", "weight"):
        _require(isinstance(told.get(key), str | None), f"its record has a malformed {key}")
    for key in ("options", "versions"):
        _require(isinstance(told.get(key, {}), dict), f"its record has malformed {key}")
    nulls = told.get("options", {}).get("nulls", "error")
    _require(nulls in NULLS, f"its record has an unknown null_policy of nulls: {brief(nulls)}")
    prior = told.get("prior")
    if prior is not None:
        shares = isinstance(prior, list) and all(_is_number(p) and 0 <= p <= 1 for p in prior)
        _require(shares and len(prior) == K, "its record has malformed class frequencies")
    deviations = told.get("deviations")
    if deviations is not None:
        spreads = isinstance(deviations, list) and all(_is_finite(s) and s >= 0 for s in deviations)
        _require(spreads and len(deviations) == d, "its record has malformed deviations")
    temperature = told.get("temperature", 1.0)
    _require(_is_finite(temperature) and temperature > 0, "its record has a malformed temperature")
    _require(_are_rows(told.get("rows")), "its record has malformed rows")
    for key, fits in (("data", _is_entry), ("ledger", _is_entry), ("lineage", _is_parent)):
        listed = told.get(key, [])
        _require(isinstance(listed, list) and all(map(fits, listed)), f"its {key} is malformed")
    return told


def _is_entry(told: object) -> bool:
    """Return whether it is what a ledger holds of a file."""
    # A file's name need not be UTF-8.
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return False
    digests = told.get("pieces", [])
    listed = isinstance(digests, list) and all(map(_is_text, digests))
    return listed and is_count(told.get("rows"), 0)


def _is_parent(told: object) -> bool:
    if not isinstance(told, dict) or not _is_text(told.get("sha256")):
        return False
    return is_count(told.get("epochs"), 0) and "rows" in told and _are_rows(told["rows"])


def _are_rows(told: object) -> bool:
    """Return whether it is a number of rows, or None where nobody knew."""
    return told is None or is_count(told, 0)


def _is_text(value: object) -> bool:
    """Return whether a value is text that UTF-8 can hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _is_finite(value: object) -> bool:
    return _is_number(value) and math.isfinite(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

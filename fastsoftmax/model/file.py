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

from fastsoftmax.data.in_use import MOST_FEATURES, InUse
from fastsoftmax.data.source import Column
from fastsoftmax.data.vocabulary import HASHING, Vocabulary
from fastsoftmax.errors import ModelFileError, SaveError
from fastsoftmax.files import require_path, write_file
from fastsoftmax.labels import KINDS, Classes
from fastsoftmax.model.many import category_tensors, read_categories
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.model.record import check_record, is_epoch
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.model.strict_json import (
    MalformedError,
    is_finite,
    is_text,
    list_of,
    object_of,
    parse_json,
    require,
)
from fastsoftmax.model.texts import are_distinct, describe_text, read_text, text_tensors
from fastsoftmax.options import is_count

FORMAT = "fastsoftmax"
VERSION = "1"
AXES = ("shape", "axes")  # what tells of a column that its rows are tensors
# Tensors of models of sparse rows: the weights (d, K), and which numbers of a column are features.
BY_FEATURE, IN_USE = "weights_by_feature", "in_use_"
FEW_CLASSES = 16  # of which a feature's weights fill a cache line, or less


def save_model(model: Parameters, path: str | os.PathLike[str]) -> None:
    """Write a model to `path`; raise SaveError if it has non-finite weights, or on a failure."""
    require_path(path)
    if not _are_finite(model):
        raise SaveError(
            f"the model has weights that are not finite; {os.fspath(path)} is not written."
        )
    described = _describe(model)
    try:
        text = json.dumps(described, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise SaveError(f"the model's history or record is not JSON: {error}.") from error
    tensors = {"weights": model.weights, "bias": model.bias}
    if model.is_sparse:
        tensors = {BY_FEATURE: np.ascontiguousarray(model.weights.T), "bias": model.bias}
        tensors |= {
            f"{IN_USE}{i}": column.sparse.index
            for i, column in enumerate(model.columns or ())
            if column.sparse is not None
        }
    if model.scaling is not None:
        tensors |= {"centre": model.scaling.centre, "scale": model.scaling.scale}
    tensors |= text_tensors(model.columns or ()) | category_tensors(model.columns or ())
    metadata = {"format": FORMAT, "format_version": VERSION, "model": text}
    write_file(path, encode_tensors(tensors, metadata))


def load_model(path: str | os.PathLike[str]) -> Parameters:
    """Read a model from `path`; raise ModelFileError if anything in the file contradicts itself."""
    require_path(path)
    try:
        tensors, metadata = decode_tensors(path)
        return _assemble(tensors, metadata)
    except MalformedError as error:
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


def _describe(model: Parameters) -> dict[str, Any]:
    columns, classes = model.columns, model.classes
    return {
        "classes": {"kind": classes.kind, "values": list(classes.values)},
        "columns": columns and [_describe_column(c) for c in columns],
        "history": model.history,
        "record": model.record,
    }


def _describe_column(column: Column) -> dict[str, Any]:
    told: dict[str, Any] = {"name": column.name, "width": column.width}
    if column.categories is not None:
        told["categories"] = {"kind": column.categories.kind}
        if column.sparse is None:
            told["categories"]["values"] = list(column.categories.values)
    if column.fill is not None:
        told["fill"] = list(column.fill)
    if column.indicator:
        told["indicator"] = True
    if column.sparse is not None:
        told["sparse"] = column.sparse.width
        if column.sparse.base is not None:
            told["base"] = column.sparse.base
        if column.sparse.is_hashed:
            told["hashed"] = HASHING
    if column.pair is not None:
        told["pair"] = list(column.pair)
    if column.text is not None:
        told["text"] = describe_text(column.text)
    told |= {key: list(held) for key in AXES if (held := getattr(column, key)) is not None}
    return told


def _assemble(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> Parameters:
    require(metadata.get("format") == FORMAT, "it was not written by fastsoftmax")
    version = metadata.get("format_version")
    require(
        version == VERSION,
        f"it has format version {brief(version)}, and this fastsoftmax reads version {VERSION}",
    )
    try:
        told = parse_json(metadata.get("model", ""))
    except ValueError as error:
        raise MalformedError(f"its description is not JSON ({error})") from None
    told = object_of(
        told, {"classes", "columns", "history", "record"}, "its description is incomplete"
    )
    classes = _read_classes(told["classes"])
    scaling, in_use = _read_scaling(tensors), _read_in_use(tensors)
    columns = _read_columns(told["columns"], in_use, tensors)
    weights, bias = _read_weights(tensors, len(classes))
    if scaling is not None:
        fits = scaling.centre.shape == scaling.scale.shape == weights.shape[1:]
        require(fits, "its centre and scale are not of the size of its weights")
    _check_columns(columns, weights.shape[1])
    history = list_of(told["history"], is_epoch, "its history is malformed")
    record = check_record(told["record"], *weights.shape)
    model = Parameters(weights, bias, classes, columns, history, record, scaling)
    require(_are_finite(model), "it has weights that are not finite")
    return model


def _are_finite(model: Parameters) -> bool:
    """Return whether weights are finite, also in raw units and per standard deviation."""
    W, b, scaling = model.weights, model.bias, model.scaling
    deviations = model.deviations
    # Bounds (d,) of the sizes: raw weights in float64 would need twice the memory of the model.
    with np.errstate(over="ignore", invalid="ignore"):
        largest = _largest_of_each(W).astype(np.float64)
        sums = [largest.sum(), np.abs(b).sum(dtype=np.float64)]
        if scaling is not None:
            largest = largest * scaling.scale
            sums.append((largest * np.abs(scaling.centre)).sum())
        if deviations is not None:
            sums.append((largest * deviations).sum())
        return bool(np.isfinite(sum(sums) + largest.sum()))


def _largest_of_each(W: np.ndarray) -> np.ndarray:
    """Return the largest size (d,) of each feature's weights (K, d); NaN where one is NaN."""
    if len(W) > FEW_CLASSES:
        return np.maximum(W.max(axis=0), -W.min(axis=0))
    # Two numbers that lie together are reduced ten times as slowly as two vectors.
    largest = np.abs(W[0])
    for weights in W[1:]:
        np.maximum(largest, np.abs(weights), out=largest)
    return largest


def _read_scaling(tensors: dict[str, np.ndarray]) -> Scaling | None:
    """Take centre and scale out of the tensors, where they are there."""
    if "centre" not in tensors and "scale" not in tensors:
        return None
    require({"centre", "scale"} <= set(tensors), "it has a centre or a scale without the other")
    centre, scale = tensors.pop("centre"), tensors.pop("scale")
    require(centre.dtype == scale.dtype == np.float64, "its centre and scale are not float64")
    finite = bool(np.isfinite(centre).all() and np.isfinite(scale).all() and (scale > 0).all())
    require(finite, "its centre and scale are not finite")
    return Scaling(centre.astype(np.float64), scale.astype(np.float64))


def _read_in_use(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take out of the tensors which numbers of sparse columns are features, by column."""
    found = {name: tensors.pop(name) for name in list(tensors) if name.startswith(IN_USE)}
    for index in found.values():
        fits = index.dtype == np.int64 and index.ndim == 1 and len(index) > 0
        require(fits and are_distinct(index), "its sparse columns are malformed")
    require(not found or BY_FEATURE in tensors, "its sparse columns have no weights")
    if BY_FEATURE in tensors and "weights" not in tensors:
        tensors["weights"] = tensors.pop(BY_FEATURE).T
    return {name.removeprefix(IN_USE): index for name, index in found.items()}


def _read_weights(tensors: dict[str, np.ndarray], K: int) -> tuple[np.ndarray, np.ndarray]:
    require(set(tensors) == {"weights", "bias"}, "its tensors are not weights and bias")
    weights, bias = tensors["weights"], tensors["bias"]
    require(weights.dtype == bias.dtype, "weights and bias differ in dtype")
    require(weights.dtype.kind == "f", f"its weights are {weights.dtype}")
    require(weights.ndim == 2 and weights.shape[1] > 0, "its weights are not a matrix")
    require(weights.shape[0] == K, f"it has {K} classes but weights for {weights.shape[0]}")
    require(bias.shape == (K,), f"it has {K} classes but a bias of shape {bias.shape}")
    native = weights.dtype.newbyteorder("=")
    return weights.astype(native, copy=False), bias.astype(native, copy=False)


def _read_classes(told: object) -> Classes:
    classes = _read_values(told, "classes")
    require(len(classes) >= 2, "it has fewer than two classes")
    return classes


def _read_values(told: object, what: str) -> Classes:
    described = object_of(told, {"kind", "values"}, f"its {what} are malformed")
    kind = described["kind"]
    require(
        isinstance(kind, str) and kind in KINDS, f"its {what} are of no known kind: {brief(kind)}"
    )
    fits = partial(_fits, kind)
    values = list_of(described["values"], fits, f"its {what} are not all of kind {kind}")
    order: Callable[[Any], Any] = str.encode if kind == "string" else int
    in_order = all(order(a) < order(b) for a, b in pairwise(values))
    require(in_order, f"its {what} are not sorted and distinct")
    return Classes(kind, tuple(values))


def _fits(kind: str, value: object) -> bool:
    if kind == "string":
        return is_text(value)
    if kind == "bool":
        return isinstance(value, bool)
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    limits = np.iinfo(kind)
    return limits.min <= value <= limits.max


def _read_columns(
    told: object, in_use: dict[str, np.ndarray], tensors: dict[str, np.ndarray]
) -> tuple[Column, ...] | None:
    """Return the columns, and take what they have of the tensors."""
    if told is None:
        require(not in_use, "it has sparse columns that it does not name")
        return None
    listed = list_of(told, _is_column, "its columns are malformed")
    columns = tuple(
        _read_column(
            each,
            in_use.get(str(number)),
            read_text(each, tensors, number),
            _read_categories(each, tensors, number),
        )
        for number, each in enumerate(listed)
    )
    known = {str(number) for number, each in enumerate(columns) if each.sparse is not None}
    require(known == set(in_use), "its sparse columns are malformed")
    return columns


def _check_columns(columns: tuple[Column, ...] | None, d: int) -> None:
    if columns is None:
        return
    require(len({c.name for c in columns}) == len(columns), "two of its columns have one name")
    width = sum(column.n_features for column in columns)
    require(width == d, f"its columns hold {width} features but its weights are for {d}")


def _read_sparse(told: dict[str, Any], index: np.ndarray | None) -> InUse | None:
    width = told.get("sparse")
    if width is None:
        return None
    fits = is_count(width, 1) and width <= MOST_FEATURES and index is not None
    require(fits and told["width"] is None, "its sparse columns are malformed")
    assert index is not None  # for it fits
    within = int(index.min()) >= 0 and int(index.max()) < width
    require(within, "its sparse columns are malformed")
    base = told.get("base")
    require(base is None or base in (0, 1), "its sparse columns are malformed")
    version = told.get("hashed")
    require(
        version in (None, HASHING),
        f"its hashes are of version {brief(version)}, and this fastsoftmax has {HASHING}",
    )
    require(version is None or width.bit_count() == 1, "its sparse columns are malformed")
    return InUse(
        width, index.astype(np.int64, copy=False), base=base, is_hashed=version is not None
    )


def _read_categories(
    told: dict[str, Any], tensors: dict[str, np.ndarray], number: int
) -> Classes | None:
    categories = told.get("categories")
    if categories is None:
        return None
    require(told["width"] is None, "a column of it holds lists of categories")
    if told.get("sparse") is not None:
        described = object_of(categories, {"kind"}, "its categories are malformed")
        return read_categories(described["kind"], tensors, number)
    found = _read_values(categories, "categories")
    require(len(found) > 0, "a column of it has no categories")
    return found


def _read_column(
    told: dict[str, Any],
    index: np.ndarray | None,
    text: Vocabulary | None,
    categories: Classes | None,
) -> Column:
    fill = told.get("fill")
    if fill is not None:
        wanted = told["width"] or 1
        fits = isinstance(fill, list) and len(fill) == wanted and all(map(is_finite, fill))
        require(fits, "its columns are malformed")
        fill = tuple(map(float, fill))
    indicator = told.get("indicator", False)
    require(isinstance(indicator, bool), "its columns are malformed")
    shape, axes = (_read_axes(told, key) for key in AXES)
    require(shape is None or math.prod(shape) == told["width"], "its columns are malformed")
    ordered = axes is None or (shape is not None and sorted(axes) == list(range(len(shape))))
    require(ordered, "its columns are malformed")
    sparse, pair = _read_sparse(told, index), told.get("pair")
    if pair is not None:
        pair = tuple(list_of(pair, is_text, "its columns are malformed"))
        require(sparse is not None and len(pair) == 2, "its columns are malformed")
    alone = (categories if sparse is None else None, told["width"], sparse, text)
    require(sum(each is not None for each in alone) <= 1, "its columns are malformed")
    return Column(
        told["name"], told["width"], categories, fill, indicator, shape, axes, sparse, text, pair
    )


def _read_axes(told: dict[str, Any], key: str) -> tuple[int, ...] | None:
    if told.get(key) is None:
        return None
    return tuple(list_of(told[key], lambda n: is_count(n, 0), "its columns are malformed"))


def _is_column(told: object) -> bool:
    optional = {
        "categories",
        "fill",
        "indicator",
        "sparse",
        "text",
        "pair",
        "base",
        "hashed",
        *AXES,
    }
    if not isinstance(told, dict) or set(told) - optional != {"name", "width"}:
        return False
    width = told["width"]
    return is_text(told["name"]) and (width is None or is_count(width, 1))

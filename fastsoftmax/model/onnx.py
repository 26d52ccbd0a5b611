"""The only place that writes a model as an ONNX graph, and that imports onnx.

    inputs -> one-hot -> Concat -> Where (nulls) -> Sub, Mul (scaling) -> Gemm -> Softmax, ArgMax

A null is NaN, or text "". Numbers are scaled and multiplied in double precision, as the inputs of a
table are: the graph then differs from `predict` by the latter's rounding alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.errors import MissingExtraError, OptionError
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.version import __version__

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    raise MissingExtraError(
        'the format onnx needs the package onnx: pip install "fastsoftmax[onnx]"'
    ) from missing

OPSET, ML_OPSET, IR_VERSION = 17, 3, 8  # what runtimes since 2022 read
LABEL, PROBABILITIES, MATRIX = "label", "probabilities", "X"
LARGEST = {"int64": 2**63 - 1, "float64": 2**53}  # whole numbers that these types hold


def onnx_bytes(model: Parameters) -> bytes:
    """Return the graph: inputs by the columns' names, or `X`; outputs label and probabilities."""
    columns = model.columns or (Column(MATRIX, model.n_features),)
    graph = _Graph(_input_names(columns))
    features = _features(graph, columns, model)
    if model.scaling is not None:
        centred = graph.add("Sub", features, graph.constant(model.scaling.centre[None]))
        features = graph.add("Mul", centred, graph.constant(model.scaling.scale[None]))
    weights, bias = (graph.double(graph.constant(v)) for v in (model.weights, model.bias))
    logits = graph.add("Gemm", features, weights, bias, transB=1)
    softmax = graph.add("Softmax", logits, axis=1)
    kind = helper.np_dtype_to_tensor_dtype(model.dtype)
    graph.add("Cast", softmax, to=kind, output=PROBABILITIES)
    best = graph.add("ArgMax", logits, axis=1, keepdims=0)
    labels = graph.constant(np.array(model.classes.values, _dtype_of(model.classes.kind)))
    graph.add("Gather", labels, best, output=LABEL)
    rows, K = "rows", len(model.classes)
    outputs = [
        helper.make_tensor_value_info(LABEL, graph.kinds[labels], [rows]),
        helper.make_tensor_value_info(PROBABILITIES, kind, [rows, K]),
    ]
    made = helper.make_graph(
        graph.nodes, "softmax_regression", graph.inputs, outputs, graph.tensors
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    whole = helper.make_model(
        made, producer_name="fastsoftmax", producer_version=__version__, opset_imports=opsets,
        ir_version=IR_VERSION,
    )  # fmt: skip
    onnx.checker.check_model(whole)
    return bytes(whole.SerializeToString(deterministic=True))


class _Graph:
    """Nodes and constants in order, whose names are none of those that are taken."""

    def __init__(self, taken: dict[Column, str]) -> None:
        self.names = taken
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.inputs: list[Any] = []
        self.kinds: dict[str, int] = {}  # of constants
        self._prefix = "_"
        while any(name.startswith(self._prefix) for name in taken.values()):
            self._prefix += "_"

    def input(self, column: Column, kind: int, width: int) -> str:
        """Declare the input of a column (rows, width); return its name."""
        name = self.names[column]
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["rows", width]))
        return name

    def add(
        self, op: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node of one output; return what that is called."""
        output = output or self._fresh()
        node = helper.make_node(op, list(inputs), [output], domain=domain or None, **attributes)
        self.nodes.append(node)
        return output

    def double(self, name: str) -> str:
        """Return it in double precision."""
        is_double = self.kinds.get(name) == TensorProto.DOUBLE
        return name if is_double else self.add("Cast", name, to=TensorProto.DOUBLE)

    def constant(self, values: np.ndarray) -> str:
        """Add an array; return what it is called."""
        name = self._fresh()
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.tensors.append(tensor)
        self.kinds[name] = tensor.data_type
        return name

    def _fresh(self) -> str:
        return f"{self._prefix}{len(self.nodes) + len(self.tensors)}"


def _input_names(columns: tuple[Column, ...]) -> dict[Column, str]:
    """Return what the input of each column is called: `X` for vectors alone, else as the column."""
    if len(columns) == 1 and columns[0].width is not None:
        return {columns[0]: MATRIX}
    for column in columns:
        if column.name in (LABEL, PROBABILITIES, ""):
            raise OptionError(
                f'format onnx: a column cannot be called "{column.name}", which an output is called'
                " or nothing may be; rename it in the training data"
            )
    return {column: column.name for column in columns}


def _features(graph: _Graph, columns: tuple[Column, ...], model: Parameters) -> str:
    """Return the features (rows, d) in double precision, nulls filled."""
    parts, fills = [], []
    for column in columns:
        if column.categories is not None:
            found, missing = _one_hot(graph, column, model.nulls)
            fills += [0.0] * len(column.categories)
        else:
            # A table's numbers are doubles; a vector has the precision that the model was given.
            scalar = column.width is None or model.dtype == np.float64
            kind = TensorProto.DOUBLE if scalar else TensorProto.FLOAT
            width = column.width or 1
            given = graph.input(column, kind, width)
            found = given if scalar else graph.double(given)
            missing = graph.add("IsNaN", found) if column.indicator else None
            if missing is not None and width > 1:
                whole = graph.add("Cast", missing, to=TensorProto.FLOAT)
                missing = graph.add("ReduceMax", whole, axes=[1], keepdims=1)
            fills += list(column.fill or [np.nan] * width)
        parts.append(found)
        if column.indicator:
            assert missing is not None
            parts.append(graph.double(missing))
            fills.append(0.0)
    features = graph.add("Concat", *parts, axis=1)
    if model.nulls in ("zero", "mean"):
        row = graph.constant(np.array(fills)[None])
        features = graph.add("Where", graph.add("IsNaN", features), row, features)
    return features


def _one_hot(graph: _Graph, column: Column, nulls: str) -> tuple[str, str | None]:
    """Return a column's categories as (rows, C) ones and zeros, and which rows are null.

    Where a null must be told from what is merely unknown, numbers are doubles, in which it is NaN.
    """
    known = column.categories
    assert known is not None
    tells_nulls = column.indicator or nulls == "drop"
    if known.kind == "string":
        if tells_nulls and "" in known.values:
            raise OptionError(
                f'format onnx: in column "{column.name}" empty text is a category, and so cannot'
                " stand for a null, which this model tells apart"
            )
        given = graph.input(column, TensorProto.STRING, 1)
        found = _among(graph, given, list(known.values))
        missing = _among(graph, given, [""]) if tells_nulls else None
    else:
        # A truth has no value beside its two that could stand for a null.
        needs_nan = tells_nulls or (known.kind == "bool" and nulls != "error")
        kind, values = _numbers(column, needs_nan)
        given = graph.input(column, kind, 1)
        found = graph.double(graph.add("Equal", given, graph.constant(values[None])))
        missing = graph.add("IsNaN", given) if tells_nulls else None
    if nulls == "drop" and missing is not None:
        is_null = graph.add("Cast", missing, to=TensorProto.BOOL)
        found = graph.add("Where", is_null, graph.constant(np.full((1, 1), np.nan)), found)
    return found, missing


def _numbers(column: Column, needs_nan: bool) -> tuple[int, np.ndarray]:
    """Return the type of a column of categories that are numbers, and these in it."""
    known = column.categories
    assert known is not None
    if known.kind == "bool" and not needs_nan:
        return TensorProto.BOOL, np.array(known.values)
    dtype = "float64" if needs_nan else "int64"
    largest = max(abs(int(value)) for value in known.values)
    if largest > LARGEST[dtype]:
        raise OptionError(
            f'format onnx: the category {largest} of column "{column.name}" does not fit {dtype}'
        )
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), np.array(known.values, dtype)


def _among(graph: _Graph, given: str, texts: list[str]) -> str:
    """Return ones in double precision where text (rows, 1) is one of `texts`: (rows, C)."""
    ones = graph.add(
        "OneHotEncoder", given, domain="ai.onnx.ml", zeros=1, cats_strings=texts
    )  # fmt: skip
    shape = graph.constant(np.array([-1, len(texts)], np.int64))
    return graph.double(graph.add("Reshape", ones, shape))


def _dtype_of(kind: str) -> Any:
    return np.object_ if kind == "string" else np.dtype(kind)

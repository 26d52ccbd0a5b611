"""Objects of all kinds and types as data, labels, weights and options: results, or our own errors.

`python -m tests.fuzz_objects [COUNT [NUMBER ...]]` makes COUNT calls (2,000 unless said) of the
public entries, or those of the numbers given, each with arguments drawn at random: many of them are
nothing that fits. Each call must give a result, or raise a FastsoftmaxError of one sentence.
"""

from __future__ import annotations

import datetime
import decimal
import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

import fastsoftmax
from fastsoftmax.errors import FastsoftmaxError
from fastsoftmax.evaluation.describe import describe_data, describe_model
from fastsoftmax.options import OPTIONS

os.environ["RUST_BACKTRACE"] = "0"  # polars panics at types that it has not
SECONDS = 60  # that a call may take
ROWS = 24
Make = Callable[[np.random.Generator], Any]
DTYPES = (
    *("float64", "float32", "float16", "int64", "uint64", "int8", "bool", "complex64", "object"),
    *("datetime64[ns]", "timedelta64[s]", "U3", "S3", "V4", "f4,i4", ">f8", "longdouble"),
)
SHAPES = ((ROWS, 2), (ROWS, 1), (0, 2), (ROWS, 0), (1, 2), (ROWS,), (), (ROWS, 2, 2), (3, 2))
NOW = datetime.datetime(2020, 1, 1)


def array(rng: np.random.Generator, shape: tuple[int, ...] | None = None) -> Any:
    """Return a NumPy array of any dtype, shape and layout: half of them matrices of floats."""
    if shape is None:
        shape = SHAPES[0] if rng.random() < 0.6 else SHAPES[rng.integers(len(SHAPES))]
    dtype = np.dtype(DTYPES[rng.integers(len(DTYPES))] if rng.random() < 0.5 else "float64")
    numbers = rng.normal(size=shape) if rng.random() < 0.7 else rng.integers(0, 3, shape)
    try:
        made = np.asarray(numbers).astype(dtype)
    except (TypeError, ValueError):
        made = np.zeros(shape, dtype)
    if made.ndim == 0:
        return made
    return (_odd_layout if rng.random() < 0.6 else _odd_value)(rng, made)


def _odd_layout(rng: np.random.Generator, made: np.ndarray) -> Any:
    kind = int(rng.integers(7))
    if kind == 3:
        made.flags.writeable = False
    return {
        0: lambda: made[::-1],
        1: lambda: np.repeat(made, 2, axis=-1)[..., ::2],
        2: lambda: np.asfortranarray(made),
        3: lambda: made,
        4: lambda: np.ma.masked_array(made, mask=rng.random(made.shape) < 0.2),
        5: lambda: np.asmatrix(made) if made.ndim < 3 else made,
        6: lambda: np.broadcast_to(made[:1], made.shape),
    }[kind]()


def _odd_value(rng: np.random.Generator, made: np.ndarray) -> np.ndarray:
    if made.dtype == object and made.size:
        made.flat[0] = (None, "x", [1], NOW, decimal.Decimal(1), 2**70)[rng.integers(6)]
    elif made.dtype.kind == "f" and made.size and rng.random() < 0.3:
        made.flat[int(rng.integers(made.size))] = (np.nan, np.inf, 1e300, -0.0)[rng.integers(4)]
    return made


def arrow_array(rng: np.random.Generator, rows: int = ROWS) -> Any:
    """Return an Arrow array of any type, as pyarrow makes it of Python's values."""
    n, at = rng.integers(0, 3, rows), int(rng.integers(len(ARROW)))
    made = ARROW[at](n)
    kind = rng.integers(8)
    if kind == 0 and rows:
        nothing = pa.nulls(1, made.type)
        made = pa.concat_arrays([made[:-1], nothing]) if len(made) else made
    elif kind == 1:
        made = pa.concat_arrays([made, made])[rows:]
    return made


def _typed(kind: Any, *values: Any) -> Callable[[np.ndarray], Any]:
    return lambda n: pa.array([values[i % len(values)] for i in n], kind)


def _lists(kind: Any) -> Callable[[np.ndarray], Any]:
    return lambda n: pa.array([[float(i), 1.0] for i in n], kind)


def _union(n: np.ndarray) -> Any:
    types = pa.array(n % 2, pa.int8())
    return pa.UnionArray.from_sparse(types, [pa.array(n), pa.array(n.astype(float))])


def _run_ends(n: np.ndarray) -> Any:
    ends = pa.array(np.arange(1, len(n) + 1), pa.int32())
    return pa.RunEndEncodedArray.from_arrays(ends, pa.array(n))


def _tensor(n: np.ndarray) -> Any:
    items = pa.array(np.repeat(n.astype("float32"), 4))
    storage = pa.FixedSizeListArray.from_arrays(items, 4)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2, 2]), storage)


class _Own(pa.ExtensionType):
    """A type that nobody knows."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.own")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> _Own:
        return cls()


def _views(n: np.ndarray) -> list[Callable[[np.ndarray], Any]]:
    made = []
    for name, values in (("string_view", ("a", "b", "c")), ("binary_view", (b"a", b"b"))):
        if hasattr(pa, name):
            made.append(_typed(getattr(pa, name)(), *values))
    if hasattr(pa, "list_view"):
        made += [_lists(pa.list_view(pa.float64())), _lists(pa.large_list_view(pa.float32()))]
    return made


ARROW: tuple[Callable[[np.ndarray], Any], ...] = (
    *(
        _typed(getattr(pa, name)(), 0, 1, 2)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    ),
    lambda n: pa.array(n.astype("float16")),
    *(_typed(kind, 0.5, 1.0, -2.0) for kind in (pa.float32(), pa.float64(), pa.float64())),
    _typed(pa.uint64(), 2**63 + 1, 2**63 + 2, 7),
    _typed(pa.int64(), 2**53 + 1, 2**53 + 2, -(2**63)),
    _typed(pa.bool_(), True, False),
    *(_typed(kind, "a", "b", "ü") for kind in (pa.string(), pa.large_string(), pa.string())),
    *(_typed(kind, b"a", b"\xff") for kind in (pa.binary(), pa.large_binary(), pa.binary(1))),
    _typed(pa.string(), "1", "2", "03"),
    *(_typed(pa.decimal128(38, scale), decimal.Decimal(1), decimal.Decimal(2)) for scale in (0, 2)),
    _typed(pa.decimal256(60, 1), decimal.Decimal(1), decimal.Decimal(3)),
    *(_typed(pa.timestamp(unit, zone), NOW) for unit, zone in (("ns", None), ("s", "UTC"))),
    *(_typed(kind, NOW.date()) for kind in (pa.date32(), pa.date64())),
    *(_typed(kind, NOW.time()) for kind in (pa.time32("s"), pa.time64("us"))),
    *(_typed(kind, datetime.timedelta(1)) for kind in (pa.duration("s"), pa.duration("ns"))),
    _typed(pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3])),
    lambda n: pa.nulls(len(n)),
    lambda n: pa.nulls(len(n), pa.float64()),
    *(_lists(kind) for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()))),
    *(_lists(kind) for kind in (pa.list_(pa.float64(), 2), pa.list_(pa.string()))[:1]),
    lambda n: pa.array([[1.0] * i for i in n], pa.list_(pa.float64())),
    lambda n: pa.array([[[1.0], [2.0]] for _ in n]),
    lambda n: pa.array([["a"] for _ in n]),
    lambda n: pa.array([{"a": 1.0, "b": 2.0} for _ in n]),
    lambda n: pa.array([{"a": "x", "b": [1]} for _ in n]),
    lambda n: pa.array([[("k", 1.0)] for _ in n], pa.map_(pa.string(), pa.float64())),
    lambda n: pa.array(n.astype(str)).dictionary_encode(),
    lambda n: pa.array(n).dictionary_encode(),
    lambda n: pa.array(n.astype(float)).dictionary_encode(),
    _union,
    _run_ends,
    _tensor,
    lambda n: pa.ExtensionArray.from_storage(_Own(), pa.array(n)),
    *_views(np.arange(3)),
)


def table(rng: np.random.Generator) -> Any:
    """Return a table with a label y, a number x, and columns of any type."""
    rows = (ROWS, ROWS, ROWS, ROWS, 0, 1)[rng.integers(6)]
    columns: dict[str, Any] = {"x": pa.array(rng.normal(size=rows))} if rng.random() < 0.8 else {}
    columns["y"] = pa.array(rng.integers(0, 3, rows)) if rng.random() < 0.6 \
        else arrow_array(rng, rows)  # fmt: skip
    for name in ("z", "w", "", "é")[: rng.integers(5)]:
        columns[name] = arrow_array(rng, rows)
    made = pa.table(columns)
    if rng.random() < 0.1:
        made = made.append_column("x", pa.array(rng.normal(size=rows)))
    return made


def frame(rng: np.random.Generator) -> Any:
    """Return a table as another library holds it, or what holds batches."""
    made, kind = table(rng), int(rng.integers(14))
    if kind < 4:
        import pandas as pd

        try:
            rows = made.to_pandas(types_mapper=pd.ArrowDtype if kind == 1 else None)
        except Exception:  # pandas has no such type
            rows = pd.DataFrame({"x": rng.normal(size=ROWS), "y": np.arange(ROWS) % 3})
        if kind == 2:
            rows.columns = [*range(len(rows.columns))]
        elif kind == 3:
            rows.index = [f"r{i % 3}" for i in range(len(rows))]
        return rows
    if kind < 6:
        import polars as pl

        try:
            rows = pl.from_arrow(made)
        except BaseException:  # polars has no such type, and panics
            rows = pl.DataFrame({"x": rng.normal(size=ROWS), "y": np.arange(ROWS) % 3})
        return rows.lazy() if kind == 5 else rows
    batches = made.to_batches(max_chunksize=7)
    return {
        6: lambda: batches[0] if batches else made,
        7: lambda: pa.RecordBatchReader.from_batches(made.schema, batches),
        8: lambda: lambda: pa.RecordBatchReader.from_batches(made.schema, batches),
        9: lambda: batches,
        10: lambda: (batch for batch in batches),
        11: lambda: made.to_pydict() if made.num_columns else {},
        12: lambda: made.column(0),
        13: lambda: lambda: None,
    }[kind]()


def file(rng: np.random.Generator) -> Any:
    """Return a path, or something like one."""
    made, folder = table(rng), Path(tempfile.mkdtemp(dir=FOLDER))
    kind = int(rng.integers(12))
    path = folder / ("d.parquet" if kind < 8 else "d.arrow")
    try:
        if kind < 8:
            pq.write_table(made, path, row_group_size=10)
        else:
            new = pa.ipc.new_stream if kind == 8 else pa.ipc.new_file
            with new(str(path), made.schema) as writer:
                writer.write_table(made)
    except (pa.ArrowException, ValueError):  # of a type that is not written
        return folder
    return {
        0: lambda: str(path), 1: lambda: path, 2: lambda: [path, str(path)], 3: lambda: folder,
        4: lambda: str(folder / "*.parquet"), 5: lambda: os.fsencode(path),
        6: lambda: path.open("rb"), 7: lambda: io.BytesIO(path.read_bytes()),
        8: lambda: path, 9: lambda: path, 10: lambda: folder / "none", 11: lambda: "a\0b",
    }[kind]()  # fmt: skip


def sparse(rng: np.random.Generator) -> Any:
    """Return a SciPy matrix or array."""
    import scipy.sparse as sp

    kinds = (sp.csr_matrix, sp.csc_array, sp.coo_matrix, sp.dok_matrix, sp.lil_array)
    return kinds[rng.integers(len(kinds))](rng.integers(0, 2, (ROWS, 2)))


class Hostile:
    """An object whose every question is an error."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class Lying:
    """An object that says it is an Arrow stream, and is none."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return None


ODD: tuple[Make, ...] = (
    *(lambda _, value=value: value for value in (
        None, 0, 1.5, -1, 2**70, True, "y", "x", "none", "", b"y", (), [], {}, set(), {1, 2},
        float("nan"), 1j, object, len, NOW, decimal.Decimal(1), "y\0", [None], [[]], "\udcff",
        ["x"], ["x", "x"], ("x", "z"), ["none"], [1], "auto", [0, 1, 2], ["a", "b"], [0, "a"],
        [0, 1, float("nan")], [0, 2**70], [0.5, 1], [True, False], [b"a", b"b"], range(3),
        {"x": 1}, {0: 2.0, 1: 1}, {"a": "b"}, "balanced", {None: 1}, [[0, 1], [2]], np.float64(1),
    )),
    lambda _: Hostile(),
    lambda _: Lying(),
    lambda rng: iter(rng.normal(size=(ROWS, 2))),
    lambda rng: (row for row in rng.normal(size=(ROWS, 2)).tolist()),
    lambda rng: rng.normal(size=(ROWS, 2)).tolist(),
    lambda rng: [*map(tuple, rng.normal(size=(ROWS, 2)))],
    lambda rng: rng.integers(0, 3, ROWS).tolist(),
    lambda rng: dict.fromkeys(range(ROWS), 1.0),
    lambda rng: memoryview(rng.normal(size=ROWS)),
    lambda rng: bytearray(ROWS),
    lambda rng: np.array(["a", "b", "c"] * (ROWS // 3)),
)  # fmt: skip


def odd(rng: np.random.Generator) -> Any:
    """Return something that fits nowhere, or somewhere else."""
    return ODD[rng.integers(len(ODD))](rng)


def matrix(rng: np.random.Generator) -> Any:
    return array(rng)


def labels(rng: np.random.Generator) -> Any:
    """Return labels of rows, or what is meant to name them."""
    kind = int(rng.integers(12)) if rng.random() < 0.6 else int(rng.integers(5))
    if kind < 3:
        return "y"
    if kind < 5:
        return rng.integers(0, 3, ROWS)
    if kind < 7:
        return array(rng, (ROWS,))
    if kind < 8:
        return arrow_array(rng)
    if kind < 9:
        return pa.chunked_array([arrow_array(rng)])
    if kind < 10:
        import pandas as pd

        return (
            pd.Series(np.arange(ROWS) % 3).astype("Int64"),
            pd.Series(["a", None, "c"] * (ROWS // 3)),
            pd.Series(["a", "b", "c"] * (ROWS // 3)).astype("category"),
            pd.Series(np.arange(ROWS) % 3, index=np.arange(ROWS)[::-1]),
        )[rng.integers(4)]
    return odd(rng)


def data(rng: np.random.Generator) -> Any:
    """Return rows of some kind."""
    if rng.random() < 0.4:
        return good(rng)
    return (matrix, matrix, table, table, table, frame, frame, file, file, sparse, odd)[
        rng.integers(11)
    ](rng)


def good(rng: np.random.Generator) -> Any:
    """Return rows that can be trained on, as arrays, tables, frames or files hold them."""
    import pandas as pd

    X = rng.normal(size=(ROWS, 2)).astype(("float64", "float32", "float16")[rng.integers(3)])
    named = pa.table({"x": X[:, 0], "y": rng.integers(0, 3, ROWS)})
    path = Path(tempfile.mkdtemp(dir=FOLDER)) / "d.parquet"
    pq.write_table(named, path)
    return (X, X, named, named.to_batches()[0], path, str(path.parent), pd.DataFrame(X))[
        rng.integers(7)
    ]


def weights(rng: np.random.Generator) -> Any:
    kind = int(rng.integers(9)) - 3
    if kind < 3:
        return None
    return (abs(rng.normal(size=ROWS)), "w", labels(rng))[kind - 3]


def options(rng: np.random.Generator) -> dict[str, Any]:
    """Return options of a run: quick ones, and some of wrong types and values."""
    chosen: dict[str, Any] = {"learning_rate": 0.1, "epochs": 1} if rng.random() < 0.8 else {}
    while rng.random() < 0.3:
        name = (*OPTIONS, "features", "classes", "categorical", "validation", "init", "report")[
            rng.integers(len(OPTIONS) + 6)
        ]
        value = odd(rng)
        if name not in ("verbose", "checkpoint", "cache_folder", "resume", "log_json"):
            chosen[name] = value
    if rng.random() < 0.15:
        chosen["nulls"] = ("zero", "mean", "drop")[rng.integers(3)]
    if rng.random() < 0.15:
        chosen["categorical"] = [("z", "x", "y")[rng.integers(3)]]
    if rng.random() < 0.15:
        chosen["features"] = [["x"], ["x", "z"], ["z"]][rng.integers(3)]
    return chosen


def model(rng: np.random.Generator) -> Any:
    """Return a model, or, now and then, something else."""
    return odd(rng) if rng.random() < 0.1 else MODELS[rng.integers(len(MODELS))]


def path_out(rng: np.random.Generator) -> Any:
    """Return where something may be written."""
    if rng.random() < 0.2:
        return odd(rng)
    return (
        Path(tempfile.mkdtemp(dir=FOLDER)) / ("o.parquet", "o.arrow", "o", "no/o")[rng.integers(4)]
    )


def _estimator(rng: np.random.Generator) -> Any:
    given: dict[str, Any] = {"max_iter": 2}
    while rng.random() < 0.3:
        names = sorted(fastsoftmax.SoftmaxClassifier().get_params())
        given[names[rng.integers(len(names))]] = odd(rng)
    return fastsoftmax.SoftmaxClassifier(**given | {"verbose": 0})


def _fitted(rng: np.random.Generator) -> Any:
    X = rng.normal(size=(ROWS, 2))
    return fastsoftmax.SoftmaxClassifier(max_iter=2).fit(X, np.arange(ROWS) % 3)


def _saved(made: Any, path: Any) -> Any:
    made.save(path)
    return fastsoftmax.load(path)


ENTRIES: dict[str, Make] = {
    "train": lambda r: fastsoftmax.train(data(r), labels(r), weight=weights(r), **options(r)),
    "train again": lambda r: fastsoftmax.train(
        data(r), "y", **{"validation": data(r)} | options(r) | {"init": model(r)}
    ),
    "sweep": lambda r: fastsoftmax.sweep(
        data(r), labels(r), **{"l2": [0, odd(r)], "learning_rate": 0.1} | options(r)
    ),
    "evaluate": lambda r: fastsoftmax.evaluate(
        model(r), data(r), labels(r), weights(r), top_k=None if r.random() < 0.8 else odd(r)
    ),
    "calibrate": lambda r: fastsoftmax.calibrate(model(r), data(r), labels(r), weights(r)),
    "pack": lambda r: fastsoftmax.pack(
        data(r), path_out(r), (None, "y", odd(r))[r.integers(3)],
        features=None if r.random() < 0.6 else odd(r), keep=() if r.random() < 0.7 else odd(r),
        dtype=None if r.random() < 0.7 else odd(r),
    ),
    "describe data": lambda r: describe_data(str(file(r)), "y"),
    "describe model": lambda r: describe_model(odd(r), odd(r)),
    "convert": lambda r: fastsoftmax.convert(data(r), path_out(r)),
    "cross-validate": lambda r: fastsoftmax.cross_validate(
        data(r), labels(r), weight=weights(r), folds=2, **options(r)
    ),
    "audit": lambda r: fastsoftmax.audit(data(r), labels(r), folds=2, **options(r)),
    "load": lambda r: fastsoftmax.load(odd(r) if r.random() < 0.5 else file(r)),
    "save": lambda r: _saved(MODELS[0], path_out(r)),
    "top_features": lambda r: MODELS[0].top_features(odd(r)),
    **{
        name: lambda r, name=name: getattr(MODELS[r.integers(len(MODELS))], name)(data(r))
        for name in ("predict", "predict_proba", "predict_log_proba", "decision_function")
    },
    "fit": lambda r: _estimator(r).fit(data(r), labels(r), weights(r)),
    "partial_fit": lambda r: _estimator(r).partial_fit(
        matrix(r) if r.random() < 0.7 else data(r), labels(r),
        [0, 1, 2] if r.random() < 0.7 else odd(r), weights(r),
    ),
    "partial_fit again": lambda r: _fitted(r).partial_fit(
        data(r), labels(r), sample_weight=weights(r)
    ),
    **{
        f"estimator {name}": lambda r, name=name: getattr(_fitted(r), name)(data(r))
        for name in ("predict", "predict_proba", "decision_function")
    },
    "score": lambda r: _fitted(r).score(data(r), labels(r), weights(r)),
}  # fmt: skip
FOLDER = ""
MODELS: list[Any] = []


def call(number: int, seed: int = 0) -> tuple[str, str, str | None]:
    """Make a call; return its entry, how it ended, and what is wrong with that, if anything."""
    rng = np.random.default_rng([seed, number])
    entry = list(ENTRIES)[number % len(ENTRIES)]
    signal.alarm(SECONDS)
    try:
        ENTRIES[entry](rng)
    except FastsoftmaxError as error:
        sentence = str(error)
        wrong = None if sentence.strip() and len(sentence) < 2000 else f"no sentence: {sentence!r}"
        return entry, type(error).__name__, wrong
    except MemoryError:
        return entry, "MemoryError", None
    except BaseException as error:
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if "fastsoftmax/" in frame.filename.replace(os.sep, "/")
        ]
        told = f"{type(error).__module__}.{type(error).__name__}: {str(error)[:160]!r}"
        return entry, type(error).__name__, f"{told} at {' '.join(places[-3:])}"
    finally:
        signal.alarm(0)
    return entry, "a result", None


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def run(count: int, numbers: set[int], seed: int = 0) -> list[str]:
    """Make `count` calls, or those of some numbers; return what was wrong, a line each."""
    global FOLDER
    ends: Counter[str] = Counter()
    wrong = []
    signal.signal(signal.SIGALRM, _too_long)
    # There too go models whose path is a word that was drawn.
    with tempfile.TemporaryDirectory() as FOLDER, chdir(FOLDER), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = pa.table({"x": np.arange(ROWS) / 9.0, "y": np.arange(ROWS) % 3})
        by_hand: dict[str, Any] = {"learning_rate": 0.1, "epochs": 1}
        MODELS[:] = [
            fastsoftmax.train(rows, "y", **by_hand),
            fastsoftmax.train(
                np.random.default_rng(0).normal(size=(ROWS, 2)), rows["y"], **by_hand
            ),
        ]
        for number in sorted(numbers) or range(count):
            entry, end, found = call(number, seed)
            ends["a result" if end == "a result" else "an error"] += 1
            if found:
                wrong.append(f"{number} {entry}: {found}")
    sys.stdout.write(f"{count} calls with objects of all kinds, {dict(ends)}, {len(wrong)} wrong\n")
    return wrong


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]] or [2000]
    problems = run(given[0], set(given[1:]))
    sys.exit("\n".join(problems) or 0)

"""Whatever the dtype, layout, nulls, slices, chunks and row groups: the rows are those of NumPy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastsoftmax.data.open import open_source
from fastsoftmax.data.preprocessing import NullPolicy
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes
from tests.tables import DTYPES, LAYOUTS, feature_columns, mixed_order

CLASSES = Classes("int64", (0, 1, 2))


@st.composite
def data_sets(draw):
    """Return rows, which numbers of them are null, and the table of them, sliced and chunked."""
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))
    rows = draw(st.integers(1, 40))
    width = draw(st.integers(2 if layout == "mixed" else 1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    X = rng.integers(0, 2 if dtype == "bool" else 100, (rows, width)).astype(dtype)
    missing = rng.random((rows, width)) < draw(st.sampled_from([0, 0, 0.1, 0.5]))
    if layout in ("tensor", "mixed"):
        missing[:] = False
    before, after = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    padded = np.concatenate([X[:1].repeat(before, 0), X, X[:1].repeat(after, 0)])
    holes = np.pad(missing, ((before, after), (0, 0)))
    columns = feature_columns(padded, layout)
    if layout == "scalars":
        columns = {name: pa.array(padded[:, j], mask=holes[:, j]) for j, name in enumerate(columns)}
    elif missing.any():
        items = pa.array(padded.ravel(), mask=holes.ravel())
        fixed = pa.FixedSizeListArray.from_arrays(items, width)
        columns = {"v": fixed.cast(columns["v"].type) if layout != "fixed" else fixed}
    whole = pa.table({**columns, "y": np.arange(len(padded)) % 3}).slice(before, rows)
    cuts = sorted(draw(st.lists(st.integers(0, rows), max_size=3)))
    parts = [whole.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
    y = np.arange(before, before + rows) % 3
    X = mixed_order(X) if layout == "mixed" else X
    return X, missing, y, pa.concat_tables(parts)


@st.composite
def sources(draw):
    """Return rows, nulls, classes, and what opens them as a Source of some kind."""
    X, missing, y, whole = draw(data_sets())
    kind = draw(st.sampled_from(["table", "parquet", "ipc", "stream"]))
    group, batch = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    memory = draw(st.sampled_from([1000, 10**6]))

    def opened(folder, **more):
        path = folder / "x"
        if kind == "parquet":
            pq.write_table(whole, path, row_group_size=group)
        elif kind == "ipc":
            with pa.ipc.new_file(path, whole.schema) as writer:
                writer.write_table(whole, max_chunksize=group)
        made = {"table": whole, "stream": lambda: whole.to_reader(batch)}
        return open_source(made.get(kind, path), "y", memory=memory, **more)

    return X, missing, y, opened


def read(source):
    chunks = list(source.chunks(CLASSES))
    X = np.concatenate(
        [np.concatenate([part.matrix() for part in chunk.parts], axis=1) for chunk in chunks]
    )
    return X, np.concatenate([chunk.labels for chunk in chunks]), chunks


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(sources())
def test_rows_are_those_of_numpy(case):
    X, missing, y, opened = case
    with tempfile.TemporaryDirectory() as folder:
        source = opened(Path(folder))
        if missing.any():
            with pytest.raises(DataError, match=r"row \d+: .*column .* is null"):
                read(source)
            source = opened(Path(folder), null_policy=NullPolicy("zero"))
        got, labels, chunks = read(source)
        assert_array_equal(got, np.where(missing, 0, X))
        assert_array_equal(labels, y)
        starts = [(chunk.piece, chunk.start) for chunk in chunks]
        assert starts == sorted(starts)

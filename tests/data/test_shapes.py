"""What is one vector in training is the same one at every later reading, or an error names both."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax.errors import DataError, FastsoftmaxError

rng = np.random.default_rng(6)
X = rng.normal(size=(40, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
LISTS = pa.array(list(X), pa.list_(pa.float32(), 6))


def tensors(shape, permutation=None):
    kind = pa.fixed_shape_tensor(pa.float32(), shape, permutation=permutation)
    return pa.table({"v": pa.ExtensionArray.from_storage(kind, LISTS), "y": Y})


OTHERS = {
    "another shape": (tensors([3, 2]), r"the shape \[3, 2\].* the shape \[2, 3\]"),
    "more axes": (tensors([1, 2, 3]), r"the shape \[1, 2, 3\].* the shape \[2, 3\]"),
    "other axes": (tensors([2, 3], [1, 0]), r"its axes in the order \[1, 0\].* the shape \[2, 3\]"),
    "a longer list": (
        pa.table({"v": pa.array([[1.0] * 7] * 40, pa.list_(pa.float32(), 7)), "y": Y}),
        r"a list of 7 numbers.* the shape \[2, 3\]",
    ),
    "a number": (pa.table({"v": X[:, 0], "y": Y}), r"one number .* the shape \[2, 3\]"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    fastsoftmax.train(tensors([2, 3]), "y", l2=0.1).save(path)
    return fastsoftmax.load(path)


@pytest.mark.parametrize("other", OTHERS)
def test_a_vector_of_another_shape_is_refused_by_both_shapes(other, model, tmp_path):
    data, message = OTHERS[other]
    for call in (
        lambda: model.predict(data),
        lambda: model.predict_proba(data),
        lambda: fastsoftmax.evaluate(model, data),
        lambda: fastsoftmax.calibrate(model, data),
        lambda: fastsoftmax.train(tensors([2, 3]), "y", validation=data, l2=0.1),
    ):
        with pytest.raises(DataError, match=message):
            call()
    with pytest.raises(FastsoftmaxError):
        fastsoftmax.train(data, "y", init=model, l2=0.1)
    paths = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    pq.write_table(tensors([2, 3]), paths[0])
    pq.write_table(data, paths[1])
    with pytest.raises(DataError, match="first file"):
        fastsoftmax.train(paths, "y", l2=0.1)


def test_lists_are_tensors_whose_axes_lie_in_their_own_order(model):
    lists = pa.table({"v": LISTS, "y": Y})
    assert_array_equal(model.predict_proba(lists), model.predict_proba(tensors([2, 3])))
    flat = fastsoftmax.train(lists, "y", l2=0.1)
    assert_array_equal(flat.weights, model.weights)
    assert_array_equal(flat.predict(tensors([3, 2])), flat.predict(lists))
    turned = fastsoftmax.train(tensors([2, 3], [1, 0]), "y", l2=0.1)
    with pytest.raises(DataError, match="axes in the order"):
        turned.predict(lists)
    assert_array_equal(turned.predict(tensors([2, 3], [1, 0])), model.predict(lists))


def test_a_model_to_start_from_has_the_features_of_the_data():
    data = pa.table({"a": X[:, 0], "b": X[:, 1], "y": Y})
    init = fastsoftmax.train(data, "y", l2=0.1)
    fastsoftmax.train(data, "y", init=init, l2=0.1)
    for other in (data.select(["b", "a", "y"]), data.rename_columns(["a", "c", "y"])):
        with pytest.raises(FastsoftmaxError, match="the features must be the same"):
            fastsoftmax.train(other, "y", init=init, l2=0.1)


@pytest.mark.parametrize(
    ("column", "remedy"),
    [
        (pa.array([{"a": 1.0, "b": 2.0}] * 40), "flatten"),
        (pa.array([[[1.0], [2.0]]] * 40), "lists of plain numbers"),
        (pa.array([1] * 40, pa.timestamp("us")), r'cast\("int64"\)'),
        (pa.array([1] * 40, pa.duration("s")), r'cast\("int64"\)'),
        (pa.array([1] * 40, pa.time64("ns")), r'cast\("int64"\)'),
        (pa.array([1] * 40, pa.date64()), r'cast\("int64"\)'),
        (pa.array([1] * 40, pa.time32("s")), r'cast\("int32"\)'),
        (pa.array([1] * 40, pa.date32()), r'cast\("int32"\)'),
    ],
    ids=str,
)
def test_a_column_that_is_no_number_is_refused_with_its_conversion(column, remedy):
    data = pa.table({"v": column, "x": X[:, 0], "y": Y})
    model = fastsoftmax.train(pa.table({"v": X[:, 1], "x": X[:, 0], "y": Y}), "y", l2=0.1)
    for call in (lambda: fastsoftmax.train(data, "y"), lambda: model.predict(data)):
        with pytest.raises(DataError, match=f'column "v" is of type .*{remedy}'):
            call()
    with pytest.raises(DataError, match="weights are numbers"):
        fastsoftmax.train(data, "y", features=["x"], weight="v")
    if pa.types.is_temporal(column.type):
        whole = column.cast(remedy[7:12])
        fastsoftmax.train(data.set_column(0, "v", whole), "y", l2=0.1)


@pytest.mark.parametrize("dtype", ["datetime64[us]", "timedelta64[s]"])
def test_times_of_numpy_are_refused_with_their_conversion(dtype):
    with pytest.raises(DataError, match=r'X.astype\("int64"\)'):
        fastsoftmax.train(np.ones((40, 1), dtype), Y)

"""A model learns the same of sparse rows, whatever they are kept in, as of dense ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, train
from tests.sparse_rows import random_rows, sparse_part

sp = pytest.importorskip("scipy.sparse")

N, D, K = 400, 30, 3
X = random_rows(N, D, 0.15)
RNG = np.random.default_rng(5)
Y = (3 * X @ RNG.normal(size=(D, K)) + RNG.gumbel(size=(N, K))).argmax(axis=1)
WEIGHT = RNG.random(N) + 0.5
PART = sparse_part(X)
ENDS, INDEX, VALUE = PART.indptr, PART.index, PART.value
BY_HAND = {"learning_rate": 0.3, "epochs": 1, "scaling": "off", "schedule": "linear"}
SPARSE = {"sparse": ["x"], "width": D}


def lists(values, kind):
    return pa.ListArray.from_arrays(pa.array(ENDS, pa.int32()), pa.array(values, kind))


def spark_vectors():
    rows = []
    for t in range(N):
        own = slice(ENDS[t], ENDS[t + 1])
        if t % 3:
            rows.append((0, D, INDEX[own].tolist(), VALUE[own].tolist()))
        else:
            rows.append((1, None, None, X[t].tolist()))
    names = ("type", "size", "indices", "values")
    numbers = (pa.list_(pa.int32()), pa.list_(pa.float64()))
    fields = list(zip(names, (pa.int8(), pa.int32(), *numbers), strict=True))
    return pa.array([dict(zip(names, row, strict=True)) for row in rows], pa.struct(fields))


def structs():
    both = pa.StructArray.from_arrays(
        [pa.array(INDEX, pa.int64()), pa.array(VALUE)], ["index", "value"]
    )
    return pa.ListArray.from_arrays(pa.array(ENDS, pa.int32()), both)


def maps():
    return pa.MapArray.from_arrays(
        pa.array(ENDS, pa.int32()), pa.array(INDEX, pa.int32()), pa.array(VALUE)
    )


COLUMNS = {
    "structs": lambda: {"x": structs()},
    "large structs": lambda: {"x": structs().cast(pa.large_list(structs().type.value_type))},
    "maps": lambda: {"x": maps()},
    "Spark's vectors": lambda: {"x": spark_vectors()},
    "two columns": lambda: {"i": lists(INDEX, pa.int16()), "v": lists(VALUE, pa.float64())},
}


def table(kind, **columns):
    own = COLUMNS[kind]()
    return pa.table({"before": RNG.random(N), **own, **columns, "y": Y, "w": WEIGHT}).drop_columns(
        ["before"]
    )


def asked(kind):
    return {"sparse": {"x": ("i", "v")}, "width": D} if kind == "two columns" else SPARSE


def full(model, width=D):
    coef = np.zeros((K, width))
    coef[:, model.feature_index] = model.coef
    return coef


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)], ids=["float32", "float64"]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"l2": 0.01},
        {"average": True, "l2": 0.01},
        {"max_step": "cap"},
        {"batch_size": 8},
        {"batch_size": 16, "average": True, "l2": 0.01},
    ],
    ids=str,
)
def test_an_epoch_of_sparse_rows_is_one_of_dense_rows(dtype, tolerance, options):
    told = {**BY_HAND, **options, "dtype": dtype, "weight": WEIGHT}
    sparse, dense = train(sp.csr_matrix(X), Y, **told), train(X, Y, **told)
    assert_allclose(full(sparse), dense.coef, atol=tolerance)
    assert_allclose(sparse.intercept, dense.intercept, atol=tolerance)
    assert_allclose(sparse.predict_proba(sp.csr_matrix(X)), dense.predict_proba(X), atol=tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)], ids=["float32", "float64"]
)
def test_an_epoch_of_two_classes_is_one_of_dense_rows(dtype, tolerance):
    y = (Y == 0) * 1
    for options in ({"l2": 0.01}, {"average": True, "l2": 0.01}, {"batch_size": 8}):
        told = {**BY_HAND, **options, "dtype": dtype, "weight": WEIGHT}
        sparse, dense = train(sp.csr_matrix(X), y, **told), train(X, y, **told)
        coef = np.zeros((2, D))
        coef[:, sparse.feature_index] = sparse.coef
        assert_allclose(coef, dense.coef, atol=tolerance)
        assert_allclose(sparse.intercept, dense.intercept, atol=tolerance)
        found = sparse.predict_proba(sp.csr_matrix(X))
        assert_allclose(found, dense.predict_proba(X), atol=tolerance)


def test_the_optimum_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    csr, weight = sp.csr_matrix(X), WEIGHT / WEIGHT.mean()
    own = train(
        csr, Y, weight=WEIGHT, solver="lbfgs", l2=1 / N, standardize=False, dtype="float64",
        tolerance=1e-13,
    )  # fmt: skip
    theirs = linear_model.LogisticRegression(C=1.0, tol=1e-12, max_iter=5000)
    theirs.fit(csr, Y, sample_weight=weight)
    assert_allclose(full(own) - full(own).mean(axis=0), theirs.coef_, atol=1e-6)
    assert_allclose(own.predict_proba(csr), theirs.predict_proba(csr), atol=1e-6)


@pytest.mark.parametrize("options", [BY_HAND, {}], ids=["by hand", "default"])
def test_all_layouts_of_the_same_rows_leave_the_same_bits(options, tmp_path):
    want = train(sp.csr_array(X), Y, weight=WEIGHT, **options)
    others = []
    # What comes after reading is the same: of a run that chooses for itself two layouts will do.
    for form in (sp.csc_matrix, sp.coo_array) if options else ():
        others.append(train(form(X), Y, weight=WEIGHT, **options))
    for kind in COLUMNS if options else ("structs",):
        rows = table(kind)
        others.append(train(rows, "y", weight="w", **options, **asked(kind)))
        chunked = pa.concat_tables([rows.slice(0, 150), rows.slice(150, 1), rows.slice(151)])
        others.append(train(chunked, "y", weight="w", threads=2, **options, **asked(kind)))
    pq.write_table(table("two columns"), tmp_path / "x.parquet", row_group_size=N)
    path = str(tmp_path / "x.parquet")
    others.append(train(path, "y", weight="w", **options, sparse="x=i:v", width=D))
    for other in others:
        assert_array_equal(other.feature_index, want.feature_index)
        assert_array_equal(other.coef, want.coef)
        assert_array_equal(other.intercept, want.intercept)


def svmlight(path, first=1, comment=""):
    lines = []
    for t in range(N):
        pairs = (f"{INDEX[j] + first}:{float(VALUE[j])!r}" for j in range(ENDS[t], ENDS[t + 1]))
        lines.append(" ".join([str(Y[t]), *pairs]) + comment)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("first", [0, 1])
def test_svmlight_files_are_read_as_matrices(tmp_path, first):
    want = train(sp.csr_matrix(X), Y, **BY_HAND)
    path = svmlight(tmp_path / "x.svm", first, " # seen")
    for told in ({}, {"zero_based": first == 0}, {"width": D, "target": "label"}):
        model = train(path, **BY_HAND, **told)
        assert_array_equal(model.coef, want.coef)
        assert_array_equal(model.feature_index, want.feature_index)
    model.save(tmp_path / "m")
    again = fastsoftmax.load(tmp_path / "m")
    assert_array_equal(again.predict_proba(path), want.predict_proba(sp.csr_matrix(X)))
    assert fastsoftmax.evaluate(again, path).rows == N


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 3:1.0 x:2", "line 2: 'x:2' is not what belongs there"),
        ("1 3:1.0 2", "line 2: '2' is not"),
        ("one 3:1.0", "line 2: 'one' is not"),
        ("1 -3:1.0", "line 2: '-3:1.0' is not"),
        ("1 qid:3 3:1.0", "line 2: 'qid:3' is not"),
        ("1,2 3:1.0", "line 2: '1,2' is not"),
        ("1 3:1 3:2", 'line 2: column "x" has the index 3 twice'),
        ("1 3:nan", r'line 2: column "x\[2\]" is nan'),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, said):
    path = tmp_path / "x.svmlight"
    path.write_text("0 1:1 2:3\n" + line + "\n0 1:1\n")
    with pytest.raises(DataError, match=said):
        train(str(path), **BY_HAND)


@pytest.mark.filterwarnings("ignore:after epoch 1")
def test_where_indices_begin_must_be_known(tmp_path):
    path = tmp_path / "x.svm"
    path.write_text("0 5:1\n1 7:2\n")
    with pytest.raises(DataError, match=r"the least index of all rows is 5.*zero_based=True"):
        train(str(path), **BY_HAND)
    assert train(str(path), zero_based=False, **BY_HAND).feature_index.tolist() == [4, 6]


def test_a_model_is_saved_loaded_and_predicts_as_before(tmp_path):
    for kind in ("two columns", "structs"):
        rows = table(kind)
        model = train(rows, "y", weight="w", **BY_HAND, **asked(kind))
        model.save(tmp_path / "m")
        again = fastsoftmax.load(tmp_path / "m")
        assert_array_equal(again.coef, model.coef)
        assert_array_equal(again.feature_index, model.feature_index)
        assert again.feature_names == model.feature_names
        again.save(tmp_path / "n")
        assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes()
        assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))
        report = fastsoftmax.evaluate(again, rows, "y")
        assert report.rows == N
        assert 0 < report.log_loss < 2
    csr = sp.csr_matrix(X)
    model = train(csr, Y, **BY_HAND)
    model.save(tmp_path / "m")
    again = fastsoftmax.load(tmp_path / "m")
    assert_array_equal(again.predict(csr), model.predict(csr))
    assert_allclose(again.predict_proba(X), model.predict_proba(csr), rtol=1e-6)
    name, _ = model.top_features(1)[0][0]
    assert name.startswith("x[")


@pytest.mark.filterwarnings("ignore:after epoch 1")
def test_numbers_and_categories_stand_beside_sparse_columns():
    numbers, kinds = RNG.normal(size=N) + 10, np.array(["a", "b", "c"])[RNG.integers(0, 3, N)]
    rows = table("maps", number=numbers, group=pa.array(kinds)).drop_columns(["w"])
    told = {"scaling": "off", "learning_rate": 1e-6, "epochs": 1, "dtype": "float64"}
    sparse = train(rows, "y", categorical=["group"], **told, **SPARSE)
    hot = (kinds[:, None] == np.array(["a", "b", "c"])).astype(float)
    order = sparse.columns[0].sparse.index
    dense = train(np.concatenate([X[:, order], numbers[:, None], hot], axis=1), Y, **told)
    assert_allclose(sparse.coef, dense.coef, atol=1e-12)
    assert_allclose(sparse.predict_proba(rows), dense.predict_proba(
        np.concatenate([X[:, order], numbers[:, None], hot], axis=1)), atol=1e-12)  # fmt: skip
    best = train(rows, "y", categorical=["group"], **SPARSE)
    assert best.record["ended"] in ("floor", "tolerance")


def test_numbers_about_zero_beside_sparse_columns_are_not_taken_for_sparse():
    signs = np.where(np.arange(N) % 2, 1.0, -1.0)
    told = {"l2": 0.1, "standardize": True, "solver": "lbfgs", "tolerance": 1e-9, **SPARSE}
    found = [
        train(table("maps", number=numbers), "y", weight=None, **told).coef
        for numbers in (signs, signs + 5)
    ]
    assert_allclose(*found, atol=1e-4)


def test_bags_are_counted_and_words_are_features():
    bags = [[3, 1, 3], [], [2], [1, 1, 1, 2]] * 30
    words = [["b", "a", "b"], [], ["c"], ["a", "a", "a", "c"]] * 30
    counts = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [0, 0, 1, 0], [0, 3, 1, 0]] * 30, float)
    y = [0, 1, 2, 0] * 30
    want = train(sp.csr_matrix(counts), y, **BY_HAND)
    bag = train(pa.table({"x": bags, "y": y}), "y", sparse=["x"], **BY_HAND)
    assert_allclose(full(bag, 4), full(want, 4), atol=1e-6)
    tags = train(pa.table({"x": words, "y": y}), "y", sparse=["x"], **BY_HAND)
    assert tags.feature_names == ("x=a", "x=b", "x=c")
    assert_allclose(tags.coef, full(want, 4)[:, [1, 3, 2]], atol=1e-6)
    unseen = pa.table({"x": [["a", "new"], ["b"]]})
    seen = pa.table({"x": [["a"], ["b"]]})
    assert_array_equal(tags.predict_proba(unseen), tags.predict_proba(seen))


@pytest.mark.filterwarnings("ignore:after epoch 1")
@pytest.mark.parametrize("kind", ["strings", "codes", "integers"])
def test_categories_that_are_many_are_sparse(kind):
    numbers = RNG.integers(0, 50, N)
    words = pa.array([f"user {i}" for i in numbers])
    values = {"strings": words, "codes": words.dictionary_encode(), "integers": pa.array(numbers)}
    rows = pa.table({"user": values[kind], "y": Y})
    told = {**BY_HAND, "learning_rate": 1e-3, "dtype": "float64"}
    few = train(rows, "y", categorical=["user"], max_categories=10, **told)
    plain = train(rows, "y", categorical=["user"], **told)
    assert few.columns[0].sparse is not None
    assert few.feature_names == plain.feature_names
    assert_allclose(few.coef, plain.coef, atol=1e-10)
    assert_allclose(few.predict_proba(rows), plain.predict_proba(rows), atol=1e-10)


def test_nulls_are_named_or_are_rows_of_zeros():
    rows = table("maps").drop_columns(["w"])
    x = rows["x"].to_pylist()
    x[7] = None
    gaps = rows.set_column(0, "x", pa.array(x, rows["x"].type))
    with pytest.raises(DataError, match='row 7: column "x" is null'):
        train(gaps, "y", **BY_HAND, **SPARSE)
    zeros = train(gaps, "y", nulls="zero", **BY_HAND, **SPARSE)
    Z = X.copy()
    Z[7] = 0
    assert_allclose(full(zeros), full(train(sp.csr_matrix(Z), Y, **BY_HAND)), atol=1e-7)
    dropped = train(gaps, "y", nulls="drop", **BY_HAND, **SPARSE)
    assert dropped.record["rows"] == N - 1


def one_row(index, value):
    fields = pa.list_(pa.struct([("index", pa.int64()), ("value", pa.float64())]))
    items = [{"index": i, "value": v} for i, v in zip(index, value, strict=True)]
    return pa.table({"x": pa.array([[{"index": 1, "value": 1.0}]] * 9 + [items], fields),
                     "y": [0, 1] * 5})  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (one_row([1, 30], [1.0, 2.0]), SPARSE, 'row 9: column "x" has the index 30, where'),
        (one_row([-1], [1.0]), {"sparse": ["x"]}, 'row 9: column "x" has the index -1, where'),
        (one_row([4, 2, 4], [1.0, 2.0, 3.0]), SPARSE, 'row 9: column "x" has the index 4 twice'),
        (one_row([4], [np.nan]), SPARSE, r'row 9: column "x\[4\]" is nan'),
        (one_row([4], [np.inf]), SPARSE, r'row 9: column "x\[4\]" is inf'),
        (one_row([4], [None]), SPARSE, 'row 9: an item of column "x" is null'),
        (one_row([4], [1.0]), {"sparse": ["z"]}, "z"),
        (one_row([4], [1.0]), {"sparse": ["x"], "nulls": "mean"}, "no mean"),
        (pa.table({"x": ["a", "b"], "y": [0, 1]}), {"sparse": ["x"]}, "Sparse columns are"),
        (
            pa.table({"i": [[1, 2], [3]], "v": [[1.0], [2.0]], "y": [0, 1]}),
            {"sparse": {"x": ("i", "v")}},
            'row 0: the lists of column "x" are of unlike lengths: "i" 2 and "v" 1 items',
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_named_with_its_place(rows, options, said):
    with pytest.raises(DataError, match=said):
        train(rows, "y", **{**BY_HAND, **options})


def test_matrices_that_contradict_themselves_or_the_model_are_refused():
    csr = sp.csr_matrix(X)
    model = train(csr, Y, **BY_HAND)
    with pytest.raises(DataError, match="the matrix has 29 columns, the model takes 30"):
        model.predict(csr[:, :-1])
    broken = csr.copy()
    broken.indices[3] = D
    with pytest.raises(DataError, match=f"the index {D} is outside the matrix of {D} columns"):
        train(broken, Y, **BY_HAND)
    holed = csr.copy()
    holed.data[5] = np.nan
    with pytest.raises(DataError, match=r'row \d+: column "x\[\d+\]" is nan'):
        train(holed, Y, **BY_HAND)
    with pytest.raises(DataError, match="NaN"):
        model.predict(holed)
    with pytest.raises(DataError, match="no number that is not 0"):
        train(sp.csr_matrix((N, D)), Y, **BY_HAND)
    with pytest.raises(DataError, match="not sparse"):
        train(X, Y, **BY_HAND).predict(csr)
    doubled = sp.coo_matrix((np.r_[VALUE / 2, VALUE / 2, 0.0], (
        np.r_[np.repeat(np.arange(N), np.diff(ENDS)), np.repeat(np.arange(N), np.diff(ENDS)), 0],
        np.r_[INDEX, INDEX, 3])), shape=(N, D))  # fmt: skip
    assert_array_equal(train(doubled, Y, **BY_HAND).coef, model.coef)


def test_runs_that_are_kept_cached_and_split_leave_the_same_bits(tmp_path):
    pq.write_table(table("structs"), tmp_path / "x.parquet", row_group_size=90)
    path = str(tmp_path / "x.parquet")
    told = {"learning_rate": 0.2, "epochs": 3, "average": True, "l1": 1e-4, "shuffle_window": 100}
    told |= {"scaling": "spread", "shuffle": "window", **SPARSE}
    found = [
        train(path, "y", cache=cache, threads=threads, **told)
        for cache, threads in (("off", 1), ("memory", 2), ("disk", 1))
    ]
    folder = str(tmp_path / "kept")

    def stop(progress):
        return progress.rows_seen > N

    train(path, "y", checkpoint=folder, checkpoint_every=1, report=stop, **told)
    found.append(train(path, "y", checkpoint=folder, resume=True, **told))
    for other in found[1:]:
        assert_array_equal(other.coef, found[0].coef)
        assert_array_equal(other.intercept, found[0].intercept)


def test_step_sizes_of_features_suit_rare_ones():
    csr, told = sp.csr_matrix(X * np.geomspace(0.01, 10, D)), {"epochs": 3, "scaling": "off"}
    plain, own = (train(csr, Y, adaptive=adaptive, **told) for adaptive in (False, True))
    assert own.history[-1]["log_loss"] < plain.history[-1]["log_loss"]
    assert own.record["ended"] == "epochs"


def test_the_estimator_takes_sparse_rows():
    pytest.importorskip("sklearn")
    csr = sp.csr_matrix(X)
    wide = sp.hstack([csr, sp.csr_matrix((N, 4))]).tocsr()
    told = {"l2": 1e-2, "dtype": "float64", "tol": 1e-12}
    sparse = fastsoftmax.SoftmaxClassifier(**told).fit(wide, Y)
    dense = fastsoftmax.SoftmaxClassifier(**told).fit(X, Y)
    assert sparse.coef_.shape == (K, D + 4)
    assert not sparse.coef_[:, D:].any()
    assert_allclose(sparse.predict_proba(wide), dense.predict_proba(X), atol=1e-5)
    assert_allclose(dense.predict_proba(csr), dense.predict_proba(X))
    assert_allclose(sparse.predict_proba(wide.toarray()), sparse.predict_proba(wide))
    assert sparse.score(wide, Y) == dense.score(X, Y)
    binary = fastsoftmax.SoftmaxClassifier(l2=1e-2).fit(csr, Y == 1)
    assert binary.coef_.shape == (1, D)
    assert binary.decision_function(csr).shape == (N,)


def test_the_estimator_learns_sparse_rows_piece_by_piece():
    pytest.importorskip("sklearn")
    csr, told = sp.csr_matrix(X), {"learning_rate": 0.1, "dtype": "float64", "average": False}
    sparse, dense = (fastsoftmax.SoftmaxClassifier(**told, l2=0.01) for _ in range(2))
    for rows in (slice(0, 40), slice(40, 200), slice(200, N)):
        sparse.partial_fit(csr[rows], Y[rows], classes=range(K))
        dense.partial_fit(X[rows], Y[rows], classes=range(K))
    assert_allclose(sparse.coef_, dense.coef_, atol=1e-10)


def test_a_model_goes_on_from_another():
    csr = sp.csr_matrix(X)
    told = {"learning_rate": 0.1, "scaling": "off", "epochs": 1, "dtype": "float64"}
    first = train(csr, Y, **told)
    second = train(csr, Y, init=first, shuffle="off", **told)
    dense = train(X, Y, init=train(X, Y, **told), shuffle="off", **told)
    assert_allclose(full(second), dense.coef, atol=1e-10)


def test_the_command_line_trains_on_sparse_columns(tmp_path, capsys):
    from fastsoftmax.cli.main import main

    pq.write_table(table("two columns"), tmp_path / "x.parquet")
    path, model = str(tmp_path / "x.parquet"), str(tmp_path / "m.safetensors")
    words = ["--target", "y", "--weight", "w", "--sparse", "x=i:v", "--width", str(D)]
    hand = ["--learning-rate", "0.3", "--epochs", "1", "--scaling", "off"]
    assert main(["train", path, *words, *hand, "-o", model]) == 0
    want = train(sp.csr_matrix(X), Y, weight=WEIGHT, **BY_HAND)
    assert_array_equal(fastsoftmax.load(model).coef, want.coef)
    assert main(["evaluate", model, path]) == 0
    assert main(["predict", model, path, "-o", str(tmp_path / "p.parquet")]) == 0
    assert pq.read_metadata(tmp_path / "p.parquet").num_rows == N
    assert main(["inspect", model]) == 0
    capsys.readouterr()


def test_the_command_line_takes_the_labels_of_svmlight_files(tmp_path, capsys):
    from fastsoftmax.cli.main import main

    svmlight(tmp_path / "x.svm")
    path, model = str(tmp_path / "x.svm"), str(tmp_path / "m.safetensors")
    hand = ["--learning-rate", "0.3", "--epochs", "1", "--scaling", "off"]
    assert main(["train", path, *hand, "-o", model]) == 0
    out = capsys.readouterr().out
    assert f"fastsoftmax train {path} -o" in out
    want = train(path, None, **BY_HAND)
    assert_array_equal(fastsoftmax.load(model).coef, want.coef)
    config = tmp_path / "run.toml"
    config.write_text(f'data = "{path}"\noutput = "{model}"\nepochs = 1')
    assert main(["train", "--config", str(config), "--learning-rate", "0.3"]) == 0


def test_passes_that_are_interrupted_go_on_with_the_same_bits(tmp_path):
    csr, told = sp.csr_matrix(X), {"solver": "lbfgs", "l2": 1e-3, "tolerance": 1e-9}
    want = train(csr, Y, **told)
    folder = str(tmp_path / "kept")
    stopped = train(
        csr, Y, checkpoint=folder, checkpoint_every=1, report=lambda p: p.epoch >= 4, **told
    )
    assert len(stopped.history) < len(want.history)
    again = train(csr, Y, checkpoint=folder, resume=True, **told)
    assert_array_equal(again.coef, want.coef)

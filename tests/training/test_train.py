"""Training through the public names, against the plain mathematics and against itself."""

import hashlib
import logging
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, DivergedError, OptionError
from fastsoftmax.data.loading.shuffle import held_out
from fastsoftmax.data.parts import Dense
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.tally import RunningLoss, Tally
from fastsoftmax.optim.weights import RowMajor
from fastsoftmax.options import TrainOptions
from tests import oracle

RATE = 0.2


def problem(K=4, d=9, n=200, seed=0):
    """Return rows that can be learnt, their classes, and weights of which some are 0."""
    X, _, w, _ = oracle.problem(K, d, n, seed)
    X *= 3 / np.sqrt(d)
    y = (X @ np.random.default_rng(seed + 1).normal(size=(d, K))).argmax(axis=1)
    return X, y, w


def trained(X, y, **options):
    given = {"learning_rate": RATE, "shuffle": "off", "epochs": 2, "dtype": "float64", **options}
    return fastsoftmax.train(X, y, **given)


def expected(X, y, w, *, epochs=2, kind="linear", halflife=None, batch_size=1, **settings):
    """Return the oracle's state, and its mean loss and accuracy in each epoch."""
    counted = int((w > 0).sum())
    w = w / w[w > 0].mean()
    schedule = Schedule(kind, RATE, epochs * counted, halflife or counted)
    state, curve = oracle.zeros(len(set(y)), X.shape[1]), []
    for epoch in range(epochs):
        eta = schedule(epoch * counted + np.cumsum(w > 0) - (w > 0))
        loss, hits = state.loss, state.hits
        if batch_size == 1:
            oracle.descend(state, X, y, w, eta, **settings)
        else:
            oracle.descend_batches(state, X, y, w, eta, batch_size, **settings)
        curve.append(((state.loss - loss) / w.sum(), (state.hits - hits) / w.sum()))
    return state, curve


CASES = [
    {},
    {"schedule": "constant"},
    {"schedule": "inverse"},
    {"schedule": "inverse", "halflife": 30.0},
    {"schedule": "cosine"},
    {"l2": 0.1},
    {"average": True},
    {"average": True, "l2": 0.1, "batch_size": 7},
    {"batch_size": 7},
    {"batch_size": 1000},
    {"fit_intercept": False},
    {"fit_intercept": False, "batch_size": 3},
]


@pytest.mark.parametrize("shape", [(4, 9), (10, 60)], ids=["plain", "blocked"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_takes_the_steps_of_the_formula(case, shape):
    X, y, w = problem(*shape)
    model = trained(X, y, weight=w, **case)
    settings = {
        name: case[name]
        for name in ("l2", "fit_intercept", "batch_size", "halflife")
        if name in case
    }
    want, curve = expected(X, y, w, kind=case.get("schedule", "linear"), **settings)
    W, b = (want.W, want.b)
    if case.get("average"):
        W, b = want.W_sum / want.steps, want.b_sum / want.steps
    assert_allclose(model.coef, W, rtol=1e-10, atol=1e-12)
    assert_allclose(model.intercept, b, rtol=1e-10, atol=1e-12)
    got = [(epoch["log_loss"], epoch["accuracy"]) for epoch in model.history]
    assert_allclose([loss for loss, _ in got], [loss for loss, _ in curve], rtol=1e-10)
    assert_allclose([hits for _, hits in got], [hits for _, hits in curve], atol=0.02)


def test_float32_stays_close_to_float64():
    X, y, _ = problem(10, 60, 500)
    single, double = trained(X, y, dtype="float32"), trained(X, y)
    assert np.linalg.norm(single.coef - double.coef) < 1e-4 * np.linalg.norm(double.coef)
    assert single.dtype == np.float32


def test_the_mean_of_long_runs_keeps_its_digits_in_float32():
    X, y, _ = problem(3, 5, 3000)
    single = trained(X, y, dtype="float32", average=True, epochs=10)
    double = trained(X, y, average=True, epochs=10)
    assert_allclose(single.coef, double.coef, rtol=1e-4, atol=1e-6)


def test_the_default_step_knows_no_common_factor_of_the_features():
    X, y, _ = problem(4, 30, 300)
    for factor in (2.0**-20, 2.0**20):
        small = fastsoftmax.train(X, y, dtype="float64")
        large = fastsoftmax.train(X * factor, y, dtype="float64")
        assert_allclose(large.coef * factor, small.coef, rtol=1e-9)
        assert_allclose(large.intercept, small.intercept, rtol=1e-9)


def digest(model, folder):
    path = folder / "m.safetensors"
    model.save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 16}, {"average": True, "l2": 0.01}], ids=str
)
@pytest.mark.parametrize(("K", "d"), [(100, 800), (10, 1600), (600, 512)])  # for four workers
def test_any_threads_and_any_repetition_give_the_same_file(K, d, options, tmp_path):
    X, y, w = problem(K, d, 150)
    digests = {
        digest(fastsoftmax.train(X, y, weight=w, threads=threads, epochs=2, **options), tmp_path)
        for threads in (1, 1, 2, 3, 4)
    }
    assert len(digests) == 1


def test_an_only_epoch_averages_its_second_half(monkeypatch):
    """Calls are cut there, however many rows they might have."""
    averaged = []
    settle = RowMajor.settle

    def count(self):
        settle(self)
        averaged.append(int(self._counted[0]))

    monkeypatch.setattr(RowMajor, "settle", count)
    X, y, _ = problem(4, 30, 1001)
    fastsoftmax.train(X, y, epochs=1, l2=0.0, solver="sgd")
    assert averaged[-1] == 501


def test_an_interrupt_in_a_call_leaves_the_mean_of_the_steps_before_it():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 9)).astype(np.float32), rng.integers(0, 4, 200).astype(np.int32)
    with SGD(4, 9, TrainOptions.of(average=True)) as solver:

        def step(rows):
            order, ones = np.arange(*rows), np.ones(100)
            solver.step((Dense(X),), order, y[order], ones, 0.1 * ones)

        step((0, 100))
        solver.weights.settle()
        want, _ = solver.weights.mean()
        within = solver.rule.step

        def interrupted(weights, visit):
            within(weights, visit)
            raise KeyboardInterrupt

        solver.rule.step = interrupted
        with pytest.raises(KeyboardInterrupt):
            step((100, 200))
        assert_array_equal(solver.weights.mean()[0], want)


def test_memory_and_verbosity_leave_no_mark_in_the_file(tmp_path, caplog):
    X, y, _ = problem(4, 30, 300)
    table = pa.table({**{f"x{j}": X[:, j] for j in range(30)}, "y": y})
    pq.write_table(table, tmp_path / "t.parquet")
    digests = {
        digest(fastsoftmax.train(tmp_path / "t.parquet", "y", **options), tmp_path)
        for options in ({}, {"memory": "200MB"}, {"verbose": True}, {"max_seconds": 1000.0})
    }
    assert len(digests) == 1


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """20,000 rows of 12 float32 features: as arrays, as a table, as three Parquet files."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(20_000, 12)).astype(np.float32)
    y = (X @ rng.normal(size=(12, 5))).argmax(axis=1)
    table = pa.table({**{f"x{j}": X[:, j] for j in range(12)}, "y": y})
    folder = tmp_path_factory.mktemp("many")
    for i, start in enumerate((0, 7_000, 13_001)):
        stop = (7_000, 13_001, 20_000)[i]
        part = table.slice(start, stop - start)
        pq.write_table(part, folder / f"part-{i}.parquet", row_group_size=1_500)
    return X, y, table, folder


@pytest.mark.parametrize("options", [{"shuffle": "off"}, {}, {"batch_size": 48, "shuffle": "off"}])
def test_arrays_tables_and_files_give_the_same_weights(many, options):
    X, y, table, folder = many
    want = fastsoftmax.train(X, y, epochs=2, **options)
    sources = (
        (np.asfortranarray(X), y),
        (table, "y"),
        (folder, "y"),
        (str(folder / "*.parquet"), "y"),
        (lambda: table.to_reader(max_chunksize=777), "y"),
    )
    for data, target in sources:
        got = fastsoftmax.train(data, target, epochs=2, **options)
        assert_array_equal(got.coef, want.coef)
        assert_array_equal(got.intercept, want.intercept)


def test_unshuffled_rows_in_windows_are_the_rows_at_once(many):
    X, y, _, folder = many
    want = fastsoftmax.train(X, y, epochs=2, shuffle="off", weight=np.arange(20_000.0) % 3)
    table = pa.table(
        {**{f"x{j}": X[:, j] for j in range(12)}, "y": y, "w": np.arange(20_000.0) % 3}
    )
    pq.write_table(table, folder.parent / "weighted.parquet", row_group_size=999)
    got = fastsoftmax.train(
        folder.parent / "weighted.parquet", "y", weight="w", epochs=2, shuffle="off",
        shuffle_window=4096,
    )  # fmt: skip
    assert_array_equal(got.coef, want.coef)


def test_a_window_smaller_than_the_data_trains_as_well(many, tmp_path):
    X, y, _, folder = many
    runs = [
        fastsoftmax.train(folder, "y", learning_rate=0.05, shuffle_window=4096, threads=threads)
        for threads in (1, 2)
    ]
    assert digest(runs[0], tmp_path) == digest(runs[1], tmp_path)
    whole = fastsoftmax.train(X, y, learning_rate=0.05)
    assert abs(runs[0].history[-1]["log_loss"] / whole.history[-1]["log_loss"] - 1) < 0.02
    assert runs[0].record["window"] == 4096
    assert whole.record["window"] is None


def test_held_out_rows_are_those_of_an_explicit_split(many):
    X, y, _, _ = many
    mask = held_out(0, 0.1, 0, len(y))
    options = {"epochs": 2, "shuffle": "off", "learning_rate": 0.1}
    split = fastsoftmax.train(X[~mask], y[~mask], validation=(X[mask], y[mask]), **options)
    held = fastsoftmax.train(X, y, holdout=0.1, **options)
    assert_allclose(held.coef, split.coef, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(held.history, split.history, strict=True):
        assert ours["rows"] == theirs["rows"]
        assert_allclose(ours["validation_log_loss"], theirs["validation_log_loss"], rtol=1e-5)
        assert_allclose(ours["validation_accuracy"], theirs["validation_accuracy"], rtol=1e-2)


def test_validation_is_what_evaluate_says(many):
    X, y, table, _ = many
    model = fastsoftmax.train(X, y, validation=(X[:500], y[:500]), epochs=1)
    report = fastsoftmax.evaluate(model, X[:500], y[:500])
    assert_allclose(model.history[-1]["validation_log_loss"], report.log_loss, rtol=1e-5)
    named = fastsoftmax.train(table, "y", validation=table.slice(0, 500), epochs=1)
    assert named.history[-1]["validation_log_loss"] == model.history[-1]["validation_log_loss"]


def test_a_reader_that_reads_once_trains_one_epoch(many):
    _, _, table, _ = many
    classes = [0, 1, 2, 3, 4]
    given = {"epochs": 1, "shuffle": "off", "learning_rate": 0.05}
    once = fastsoftmax.train(table.to_reader(), "y", classes=classes, **given)
    again = fastsoftmax.train(table, "y", schedule="constant", **given)
    assert_array_equal(once.coef, again.coef)
    with pytest.raises(OptionError, match="give classes="):
        fastsoftmax.train(table.to_reader(), "y", epochs=1)
    with pytest.raises(DataError, match="epochs=1"):
        fastsoftmax.train(table.to_reader(), "y", classes=classes, epochs=2)
    with pytest.raises(OptionError, match="schedule"):
        fastsoftmax.train(table.to_reader(), "y", classes=classes, epochs=1, schedule="linear")


def test_training_goes_on_from_a_model():
    X, y, _ = problem()
    options = {"schedule": "constant", "epochs": 1}
    first = trained(X, y, **options)
    second = trained(X, y, init=first, **options)
    assert_allclose(second.coef, trained(X, y, schedule="constant", epochs=2).coef, rtol=1e-10)
    with pytest.raises(OptionError, match="must agree"):
        trained(X[:, :5], y, init=first)


def test_rows_of_weight_zero_might_as_well_not_be_there():
    X, y, w = problem(4, 9, 100)
    some = trained(X[w > 0], y[w > 0], weight=w[w > 0])
    all_rows = trained(X, y, weight=w)
    assert_allclose(all_rows.coef, some.coef, rtol=1e-10)
    assert all_rows.history[0]["rows"] == int((w > 0).sum())


def test_time_is_up_inside_an_epoch():
    X, y, _ = problem(10, 60, 20_000)
    with pytest.warns(fastsoftmax.NotConverged, match="max_seconds"):
        model = fastsoftmax.train(X, y, epochs=10_000, max_seconds=0.3)
    assert 1 <= len(model.history) < 10_000
    assert np.isfinite(model.coef).all()


def test_a_report_can_end_the_run():
    X, y, _ = problem()
    model = trained(
        X, y, epochs=9, report=lambda progress: progress.finished and progress.epoch == 3
    )
    assert len(model.history) == 3


def test_a_step_far_too_long_is_refused_with_one_that_works():
    X, y, _ = problem(4, 9, 10_000)
    with pytest.raises(DivergedError, match="too high") as caught:
        fastsoftmax.train(X, y, learning_rate=1e6)
    safe = float(str(caught.value).split("learning_rate=")[1].split(",")[0])
    assert fastsoftmax.train(X, y, learning_rate=safe).history[-1]["log_loss"] < math.log(4)
    with pytest.raises(DivergedError):
        fastsoftmax.train(X[:300], y[:300], learning_rate=1e30)


def test_worse_than_guessing_is_a_warning():
    X, y, _ = problem(4, 9, 300)
    with pytest.warns(UserWarning, match="worse than guessing"):
        trained(X, y, learning_rate=5.0, epochs=1, schedule="constant")


def test_one_line_an_epoch_goes_to_the_logger(caplog):
    X, y, _ = problem()
    with caplog.at_level(logging.INFO, "fastsoftmax"):
        trained(X, y, epochs=3)
    assert sum(record.message.startswith("epoch ") for record in caplog.records) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_feature_that_is_not_finite_is_named(value, tmp_path):
    table = pa.table({"a": np.ones(100), "b": np.ones(100), "y": np.arange(100) % 2})
    b = table["b"].to_numpy().copy()
    b[67] = value
    pq.write_table(table.set_column(1, "b", pa.array(b)), tmp_path / "t.parquet", row_group_size=30)
    with pytest.raises(DataError, match=r't\.parquet, row group 2, row 7: column "b" is'):
        fastsoftmax.train(tmp_path / "t.parquet", "y", scaling="off")


def test_any_finite_feature_trains_where_features_are_brought_to_one_scale():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    X = rng.normal(size=(400, 4)) + y[:, None]
    plain = fastsoftmax.train(X, y, l2=1e-3, standardize=True).predict_proba(X)
    X = X * [1e300, 1.0, 1e-200, 1.0] + [0.0, 1.7e9, 0.0, 0.0]
    model = fastsoftmax.train(X, y, l2=1e-3, standardize=True)
    assert_allclose(model.predict_proba(X), plain, atol=2e-3)


def test_a_feature_is_named_wherever_it_stands(many, tmp_path):
    X, y, _, _ = many
    X = X.copy()
    X[19_999, 11] = np.nan
    table = pa.table({**{f"x{j}": X[:, j] for j in range(12)}, "y": y})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3_000)
    for options in ({}, {"shuffle_window": 4096}, {"batch_size": 64}, {"learning_rate": 0.1}):
        with pytest.raises(DataError, match=r'row group 6, row 1999: column "x11" is nan'):
            fastsoftmax.train(tmp_path / "t.parquet", "y", **options)
    with pytest.raises(DataError, match=r"row 19999: feature 11 is nan"):
        fastsoftmax.train(X, y)


def test_what_contradicts_itself_is_refused():
    X, y, _ = problem()
    with pytest.raises(OptionError, match="target is missing"):
        fastsoftmax.train(X)
    with pytest.raises(OptionError, match="exclude each other"):
        fastsoftmax.train(X, y, validation=(X, y), holdout=0.5)
    with pytest.raises(TypeError, match="did you mean learning_rate"):
        fastsoftmax.train(X, y, learningrate=1)
    with pytest.raises(DataError, match="the target is 4, none of the 4 classes"):
        fastsoftmax.train(X, y, validation=(X, y + 1))


def test_the_weights_of_the_last_step_are_there_beside_their_mean(tmp_path):
    X, y, _ = problem()
    options = {"learning_rate": 0.05, "epochs": 2}
    averaged = fastsoftmax.train(X, y, average=True, **options)
    last = fastsoftmax.train(X, y, average=False, **options)
    assert last.unaveraged is None
    assert_array_equal(averaged.unaveraged.weights, last.weights)
    assert (averaged.weights != last.weights).any()
    averaged.save(tmp_path / "m")
    assert fastsoftmax.load(tmp_path / "m").unaveraged is None


def test_the_error_of_a_mean_loss_is_that_between_parts_of_any_size():
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=10_100)
    sums = RunningLoss()
    for start in range(0, len(rows), 1000):  # the last part is a tenth of the others
        part = rows[start : start + 1000]
        sums += RunningLoss.of(Tally(part.sum(), 0.0, True), np.ones(len(part)))
    assert 0.3 < sums.error() / (rows.std() / len(rows) ** 0.5) < 2
    assert RunningLoss.of(Tally(1.0, 0.0, True), np.ones(3)).error() is None

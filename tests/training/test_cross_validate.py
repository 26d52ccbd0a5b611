"""Each fold is judged by a model that has not seen it, over one read of the rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax import DataError, OptionError
from fastsoftmax.cli.main import main
from fastsoftmax.data.loading.buckets import BucketRows
from fastsoftmax.data.loading.shuffle import buckets_of, uniforms
from fastsoftmax.data.loading.shuffle_buffer import RowNumbers
from fastsoftmax.data.table import TableSource
from fastsoftmax.training.shares import Share, fold_of

EXACT = {"solver": "lbfgs", "l2": 1e-2, "dtype": "float64", "scaling": "off", "tolerance": 1e-12}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(3000, 4))
    return X, (X[:, :3] + rng.gumbel(size=(3000, 3))).argmax(axis=1)


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    X, y = rows
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    columns = {f"x{j}": column for j, column in enumerate(X.T)}
    pq.write_table(pa.table({**columns, "y": y}), path, row_group_size=200)
    return str(path)


def test_each_model_is_that_of_all_other_rows(rows):
    X, y = rows
    found = fastsoftmax.cross_validate(X, y, folds=3, **EXACT)
    fold = fold_of(uniforms(0, 0, len(y)), 3)
    for f, (model, report) in enumerate(zip(found.models, found.reports, strict=True)):
        alone = fastsoftmax.train(X[fold != f], y[fold != f], **EXACT)
        np.testing.assert_allclose(model.coef, alone.coef, atol=1e-5)
        judged = fastsoftmax.evaluate(alone, X[fold == f], y[fold == f])
        assert report.rows == judged.rows == (fold == f).sum()
        assert report.log_loss == pytest.approx(judged.log_loss, abs=1e-5)
        np.testing.assert_array_equal(report.confusion, judged.confusion)
    losses = [report.log_loss for report in found.reports]
    assert found.log_loss == pytest.approx(np.mean(losses))
    assert found.log_loss_error == pytest.approx(np.std(losses, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle_window": 512},
        {"shuffle": "full", "shuffle_window": 512},
        {"shuffle": "off", "learning_rate": 0.05, "epochs": 2},
        {"learning_rate": 0.05, "epochs": 2, "scaling": "off"},
        {"memory": "10MB", "cache": "disk"},
    ],
)
def test_a_row_is_in_its_fold_whatever_the_order_of_reading(rows, file, options):
    X, y = rows
    found = fastsoftmax.cross_validate(file, "y", folds=4, l2=1e-2, **options)
    fold = fold_of(uniforms(0, 0, len(y)), 4)
    for f, (model, report) in enumerate(zip(found.models, found.reports, strict=True)):
        assert report.rows == (fold == f).sum()
        judged = fastsoftmax.evaluate(model, X[fold == f], y[fold == f])
        assert report.log_loss == pytest.approx(judged.log_loss, rel=1e-5)
        want = np.bincount(y[fold != f]) / (fold != f).sum()
        if "learning_rate" not in options:  # at the optimum the mean prediction is the frequency
            got = model.predict_proba(X[fold != f]).mean(axis=0)
            np.testing.assert_allclose(got, want, atol=2e-3)


def test_the_rows_are_read_once_for_all_folds(file, monkeypatch):
    passes = []
    whole = TableSource.chunks

    def counted(self, classes, order=None):
        passes.append(order)
        return whole(self, classes, order)

    monkeypatch.setattr(TableSource, "chunks", counted)
    fastsoftmax.cross_validate(file, "y", folds=3, l2=1e-2, readers=1)
    three = len(passes)
    passes.clear()
    fastsoftmax.cross_validate(file, "y", folds=9, l2=1e-2, readers=1)
    assert len(passes) == three <= 3


def test_probabilities_out_of_fold_are_written_row_by_row(rows, file, tmp_path):
    X, y = rows
    out = tmp_path / "unseen.parquet"
    found = fastsoftmax.cross_validate(file, "y", folds=3, out=out, **EXACT)
    table = pq.read_table(out)
    assert table.schema.names == [
        "row", "fold", "y", "prediction", "probability", "probabilities",
    ]  # fmt: skip
    assert table["row"].to_pylist() == list(range(3000))
    assert table["y"].to_pylist() == y.tolist()
    folds, p = table["fold"].to_numpy(), np.array(table["probabilities"].to_pylist())
    for f, model in enumerate(found.models):
        np.testing.assert_allclose(p[folds == f], model.predict_proba(X[folds == f]), atol=1e-6)


def test_threads_change_no_bit(file):
    one, two = (fastsoftmax.cross_validate(file, "y", folds=3, threads=t) for t in (1, 2))
    for first, other in zip(one.models, two.models, strict=True):
        np.testing.assert_array_equal(first.coef, other.coef)
    assert one.reports[0].log_loss == two.reports[0].log_loss


def test_weights_count_and_rows_of_no_weight_do_not(rows):
    X, y = rows
    w = np.where(np.arange(3000) < 1500, 2.0, 0.0)
    found = fastsoftmax.cross_validate(X, y, folds=2, weight=w, **EXACT)
    assert sum(report.rows for report in found.reports) == 1500


def test_numbers_of_rows_are_the_same_one_by_one_and_together():
    spans = RowNumbers()
    for number, count in ((40, 3), (7, 5), (100, 1)):
        spans.add(number, count)
    want = [40, 41, 42, 7, 8, 9, 10, 11, 100]
    assert [int(spans(row)) for row in range(9)] == want == spans(np.arange(9)).tolist()
    bucket = BucketRows(3, 4, 500, 2)
    drawn = np.flatnonzero(buckets_of(3, 4, 0, 500) == 2)
    np.testing.assert_array_equal(bucket(np.arange(len(drawn))), drawn)
    assert bucket(5) == drawn[5]


def test_shares_are_disjoint_and_whole():
    drawn = uniforms(9, 0, 10_000)
    shares = [Share(9, i / 4, (i + 1) / 4) for i in range(4)]
    assert sum(share.has(drawn).astype(int) for share in shares).min() == 1
    others = Share(9, 0.25, 0.5, outside=True)
    np.testing.assert_array_equal(others.has(drawn), ~shares[1].has(drawn))
    np.testing.assert_array_equal(uniforms(9, 4321, 100), drawn[4321:4421])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"folds": 1}, "folds must be a whole number in 2..1000, got 1"),
        ({"holdout": 0.1}, "holdout is of train"),
        ({"checkpoint": "x"}, "checkpoint is of train"),
        ({"shards": 3}, "shards is of train: here rows are dealt to models, leave it out"),
        ({"shards": 3, "workers": 2}, "shards is of train"),
        ({"fold": 3}, "there is no option 'fold'"),
    ],
)
def test_what_makes_no_folds_is_refused(rows, given, sentence):
    calls = [fastsoftmax.cross_validate]
    if "shards" in given:
        calls += [fastsoftmax.audit, fastsoftmax.learning_curve]
    for call in calls:
        with pytest.raises(OptionError, match=sentence):
            call(*rows, **given)


def test_a_reader_that_is_read_once_is_refused(rows):
    X, y = rows
    batch = pa.record_batch({"x": X[:, 0], "y": y})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    with pytest.raises((OptionError, DataError), match="can be read once"):
        fastsoftmax.cross_validate(reader, "y", classes=[0, 1, 2])


def test_the_command_prints_means_and_errors(file, tmp_path, capsys):
    out = tmp_path / "unseen.csv"
    given = ["cross-validate", file, "--target", "y", "--folds", "3", "--l2", "0.01", "--quiet"]
    assert main([*given, "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "log-loss  0." in shown
    assert " +- 0.0" in shown
    assert out.read_text().startswith('"row","fold","y","prediction","probability","p_0"')
    assert main([*given, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["reports"]) == 3
    assert facts["log_loss"] == pytest.approx(np.mean([r["log_loss"] for r in facts["reports"]]))

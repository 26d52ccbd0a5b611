"""Training on texts: one digest however they are read, and what goes with them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax

RNG = np.random.default_rng(2)
CLASSES = RNG.integers(0, 3, 300)
TEXTS = [
    f"{['one', 'two', 'three'][k]} 中{j % 7} w{RNG.integers(40)}" for j, k in enumerate(CLASSES)
]
TABLE = pa.table({"text": TEXTS, "size": RNG.normal(size=300), "y": CLASSES})


@pytest.fixture(scope="module")
def wanted():
    return fastsoftmax.train(TABLE, "y", text=["text"])


@pytest.mark.parametrize("options", [{"threads": 1}, {"cache": "disk"}, {"readers": 2}])
def test_weights_do_not_depend_on_who_reads(wanted, options):
    model = fastsoftmax.train(TABLE, "y", text=["text"], **options)
    assert_array_equal(model.coef, wanted.coef)
    assert model.columns == wanted.columns


def test_weights_are_those_of_files_and_of_other_strings(wanted, tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=100)
    model = fastsoftmax.train(tmp_path / "t.parquet", "y", text=["text"])
    assert model.columns == wanted.columns
    encoded = TABLE.set_column(0, "text", TABLE["text"].dictionary_encode())
    assert_array_equal(fastsoftmax.train(encoded, "y", text=["text"]).coef, wanted.coef)
    assert fastsoftmax.evaluate(model, encoded).accuracy == 1.0


@pytest.mark.parametrize(
    "options", [{"shards": 2}, {"l1": 1e-4}, {"holdout": 0.2}, {"dtype": "float64"}, {"bits": 10}]
)
def test_texts_go_with_other_options(options):
    model = fastsoftmax.train(TABLE, "y", text=["text"], **options)
    assert fastsoftmax.evaluate(model, TABLE).accuracy > 0.99


BY_HAND = {"text": ["text"], "learning_rate": 0.2, "epochs": 3, "shuffle_window": 100}


@pytest.mark.parametrize(
    "options",
    [
        {"average": True, "l1": 1e-5},
        {"batch_size": 16, "average": True, "nulls": "zero"},
        {"adaptive": True, "l2": 1e-3},
        {"solver": "lbfgs", "l2": 1e-3, "epochs": "auto"},
    ],
    ids=str,
)
def test_runs_over_texts_that_are_resumed_leave_the_same_bits(options, tmp_path):
    gaps = TABLE.set_column(0, "text", pa.array([*TEXTS[:-1], None if "nulls" in options else ""]))
    told = {**BY_HAND, **options}
    if "solver" in told:
        del told["learning_rate"]
    want = fastsoftmax.train(gaps, "y", **told)
    kept = {"checkpoint": str(tmp_path), "checkpoint_every": 1}
    stop = lambda event: event.epoch >= 2  # noqa: E731
    fastsoftmax.train(gaps, "y", report=stop, **kept, **told)
    again = fastsoftmax.train(gaps, "y", resume=True, **kept, **told)
    assert_array_equal(again.coef, want.coef)
    assert_array_equal(again.intercept, want.intercept)
    other = gaps.set_column(0, "text", pa.array(["else", *gaps["text"].to_pylist()[1:]]))
    with pytest.raises(fastsoftmax.FastsoftmaxError, match=r"resume|checkpoint"):
        fastsoftmax.train(other, "y", resume=True, **kept, **{**told, "ngrams": "1"})


def test_texts_are_swept_stopped_early_weighted_and_calibrated(tmp_path):
    weighted = TABLE.append_column("w", pa.array(np.where(CLASSES == 2, 0.0, 1.0)))
    model = fastsoftmax.train(weighted, "y", weight="w", **BY_HAND, classes=range(3))
    assert (model.predict(TABLE) != 2).all()
    twice = pa.concat_tables([TABLE.slice(0, 200), TABLE.slice(0, 200)])
    stays = {**BY_HAND, "shuffle": "off", "schedule": "constant", "min_count": 1, "epochs": 1}
    light = TABLE.slice(0, 200).append_column("w", pa.array([2.0] * 200))
    first = fastsoftmax.train(twice, "y", **stays | {"min_count": 2}).feature_names
    assert set(first) == set(fastsoftmax.train(light, "y", weight="w", **stays).feature_names)
    swept = fastsoftmax.sweep(TABLE, "y", holdout=0.3, **BY_HAND | {"learning_rate": [1e-3, 0.2]})
    assert swept.table[0]["learning_rate"] == 0.2
    noisy = TABLE.set_column(2, "y", pa.array(np.where(RNG.random(300) < 0.5, 0, CLASSES)))
    stopped = fastsoftmax.train(
        noisy, "y", holdout=0.3, patience=1, **BY_HAND | {"epochs": 60, "learning_rate": 0.5}
    )
    assert stopped.record["ended"] == "patience"
    calibrated = fastsoftmax.calibrate(stopped, TABLE, "y")
    assert_array_equal(calibrated.predict(TABLE), stopped.predict(TABLE))
    calibrated.save(tmp_path / "m")
    assert fastsoftmax.load(tmp_path / "m").record["temperature"] > 0


def test_the_estimator_ends_a_pipeline_that_begins_with_texts():
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    classifier = fastsoftmax.SoftmaxClassifier(l2=1e-4)
    pipeline = make_pipeline(TfidfVectorizer(), classifier).fit(TEXTS, CLASSES)
    assert pipeline.score(TEXTS, CLASSES) > 0.99
    assert pipeline.predict_proba(TEXTS[:2]).shape == (2, 3)


def test_options_of_texts_without_texts_are_refused():
    with pytest.raises(fastsoftmax.OptionError, match="ngrams is of columns of texts"):
        fastsoftmax.train(TABLE, "y", ngrams="1-3")
    with pytest.raises(
        fastsoftmax.OptionError, match=r'ngrams must be sizes from 1 to 8, as "1-2"'
    ):
        fastsoftmax.train(TABLE, "y", text=["text"], ngrams="2-1")
    with pytest.raises(fastsoftmax.OptionError, match=r'text must be a list of columns, as \["tit'):
        fastsoftmax.train(TABLE, "y", text="text")

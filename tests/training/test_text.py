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


def test_options_of_texts_without_texts_are_refused():
    with pytest.raises(fastsoftmax.OptionError, match="ngrams is of columns of texts"):
        fastsoftmax.train(TABLE, "y", ngrams="1-3")
    with pytest.raises(
        fastsoftmax.OptionError, match=r'ngrams must be sizes from 1 to 8, as "1-2"'
    ):
        fastsoftmax.train(TABLE, "y", text=["text"], ngrams="2-1")
    with pytest.raises(fastsoftmax.OptionError, match=r'text must be a list of columns, as \["tit'):
        fastsoftmax.train(TABLE, "y", text="text")

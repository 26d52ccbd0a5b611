"""A record holds what shaped a model, as JSON can hold it, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

from fastsoftmax.model.record import RunFacts, record_of

FACTS = RunFacts(
    options={"epochs": 3, "l2": 0.5},
    reasons={"l2": "it was least"},
    deviations=np.array([0.5, 2.0]),
    window=None,
    buckets=0,
    target="label",
    weight=None,
    rows=12,
    mass=np.array([1.0, 3.0]),
    data=[{"name": "a.parquet", "rows": 12}],
    ended="tolerance",
    gain=1e-6,
    gain_error=1e-7,
    origin={},
)


def test_a_record_is_json_that_comes_back_as_it_was():
    record = record_of(FACTS)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_record_has_the_keys_that_readers_of_models_know():
    assert list(record_of(FACTS)) == [
        *("options", "reasons", "deviations", "window", "buckets", "target", "weight", "rows"),
        *("prior", "data", "ended", "gain", "gain_error", "versions"),
    ]


def test_the_prior_is_the_share_of_each_class():
    assert record_of(FACTS)["prior"] == [0.25, 0.75]


def test_what_was_not_measured_or_not_done_is_none():
    record = record_of(replace(FACTS, deviations=None))
    assert record["deviations"] is record["window"] is record["buckets"] is None
    assert record_of(FACTS)["deviations"] == [0.5, 2.0]
    assert record_of(replace(FACTS, buckets=4))["buckets"] == 4


@pytest.mark.parametrize("name", ["target", "weight"])
def test_a_column_is_remembered_by_its_name_and_an_array_is_not(name):
    assert record_of(replace(FACTS, **{name: "column"}))[name] == "column"
    assert record_of(replace(FACTS, **{name: np.arange(3)}))[name] is None


def test_the_models_it_goes_on_from_are_told_beside_its_own_data():
    origin = {"lineage": [{"sha256": "ab", "rows": 7, "epochs": 1}], "ledger": []}
    record = record_of(replace(FACTS, origin=origin))
    assert {key: record[key] for key in origin} == origin


def test_the_versions_are_those_of_all_packages_that_shape_bits():
    versions = record_of(FACTS)["versions"]
    assert list(versions) == ["fastsoftmax", "numpy", "numba", "pyarrow"]
    assert versions["numpy"] == version("numpy")

"""Features are ranked by the size of their weights, in units that can be compared."""

from __future__ import annotations

import numpy as np
import pytest

from fastsoftmax.errors import OptionError
from fastsoftmax.evaluation.describe import describe_model
from fastsoftmax.evaluation.formatting import model_facts
from fastsoftmax.labels import given_classes
from fastsoftmax.model.model import Model, load
from tests.models import make_model

W = np.array([[0.5, -3.0, 0.0, 1.0], [1.0, 1.0, -1.0, 1.0]])


def make(named=False, **record) -> Model:
    """Return a model of the weights above."""
    columns = make_model(2, 4).columns if named else None
    return Model(W, np.zeros(2), given_classes(["no", "yes"]), columns, None, record)


def test_the_largest_weights_come_first_whatever_their_sign():
    assert make().top_features(2) == {
        "no": [(1, -3.0), (3, 1.0)],
        "yes": [(0, 1.0), (1, 1.0)],
    }


def test_features_go_by_name_where_they_have_one():
    assert make(named=True).top_features(1) == {"no": [("v[0]", -3.0)], "yes": [("a", 1.0)]}


def test_known_deviations_make_weights_comparable():
    model = make(deviations=[100.0, 0.125, 1.0, 0.0])
    assert model.top_features() == {
        "no": [(0, 50.0), (1, -0.375)],
        "yes": [(0, 100.0), (2, -1.0), (1, 0.125)],
    }


def test_weights_of_zero_are_no_features_of_a_class():
    assert [j for j, _ in make().top_features(9)["no"]] == [1, 3, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, 80])
def test_ranks_are_those_of_a_full_sort(n):
    model = make_model(4, 50, dtype="float64", named=False)
    for weights, ranked in zip(model.coef, model.top_features(n).values(), strict=True):
        want = sorted(range(50), key=lambda j: (-abs(weights[j]), j))[:n]
        assert ranked == [(j, weights[j]) for j in want]


def test_at_least_one_feature_is_listed():
    with pytest.raises(OptionError, match="must be a whole number >= 1, got 0"):
        make().top_features(0)


def test_deviations_and_temperature_survive_saving(tmp_path):
    record = {"deviations": [0.5, 0.0, 2.0, 1e-30], "temperature": 1.5}
    make(**record).save(tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").record == record


@pytest.mark.parametrize(("K", "lines"), [(20, 20), (21, 0)])
def test_the_text_lists_weights_of_few_classes(tmp_path, K, lines):
    make_model(K, 4).save(tmp_path / "m.safetensors")
    facts = dict(model_facts(describe_model(str(tmp_path / "m.safetensors"))))
    assert sum(name.startswith("class ") for name in facts) == lines
    assert facts["top weights"].startswith("per unit of the feature")

"""Going on from another model: what a run takes over unless told, and what is remembered."""

from __future__ import annotations

import numpy as np
import pytest

from fastsoftmax.errors import DataError
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import warm_start
from tests.models import make_model


class Files:
    """A source that is known by its files, of which some rows are left out."""

    def __init__(self, known, rows=10, left=0):
        self.known, self.rows, self.left = known, rows, left

    def fingerprint(self):
        return self.known

    def leave_out(self, entries):
        self.entries = entries
        self.rows -= self.left
        return self.left


def file_of(name, *pieces):
    """Return what a file is known by."""
    return {"name": name, "size": 9, "rows": 5, "sha256": name, "pieces": list(pieces)}


def trained_on(*files, epochs=1, **record):
    """Return a model that knows what it was trained on."""
    model = make_model()
    model.record |= {"data": list(files), **record}
    model.history *= epochs
    return model


def test_rows_are_new_only_where_both_know_their_files():
    old, skip = trained_on(file_of("a", "1")), TrainOptions.of()
    assert warm_start.is_new(Files([file_of("b", "2")]), old, skip) is old
    assert warm_start.is_new(Files([]), old, skip) is None
    assert warm_start.is_new(Files([file_of("b", "2")]), trained_on(), skip) is None
    assert warm_start.is_new(Files([file_of("b", "2")]), None, skip) is None
    assert warm_start.is_new(Files([file_of("b")]), old, TrainOptions.of(seen="again")) is None


def test_new_rows_are_seen_once_with_the_penalty_there_was():
    old = trained_on(options={"l2": 0.125, "standardize": True})
    options = warm_start.going_on(TrainOptions.of(), old)
    assert (options.steps.epochs, options.steps.schedule) == (1, "inverse")
    assert (options.penalty.l2, options.penalty.standardize) == (0.125, True)
    assert warm_start.going_on(TrainOptions.of(), None) == TrainOptions.of()


def test_what_was_asked_for_stays_as_it_is():
    old = trained_on(options={"l2": 0.125, "standardize": True})
    by_hand = TrainOptions.of(learning_rate=0.1)
    assert warm_start.going_on(by_hand, old) == by_hand
    asked = TrainOptions.of(epochs=3, l2=1e-3, standardize=False)
    assert warm_start.going_on(asked, old) == asked
    unscaled = warm_start.going_on(TrainOptions.of(scaling="off"), old)
    assert unscaled.penalty.standardize is False  # which needs features of one scale


def test_all_rows_of_a_line_count_though_full_gradients_of_many_passes_count_ten():
    first = {"sha256": "1", "rows": 100, "epochs": 2}
    model = trained_on(rows=40, lineage=[first], epochs=200)
    assert warm_start.rows_taken(model) == (100, 100 * 2 + 40 * warm_start.PASSES_COUNTED)
    assert warm_start.rows_taken(None) == (0, 0)
    assert warm_start.rows_taken(trained_on(rows=None)) == (0, 0)


def test_a_record_tells_the_line_and_what_those_before_were_trained_on():
    grandparent = {"sha256": "1", "rows": 100, "epochs": 2}
    old = trained_on(file_of("a", "1"), rows=40, lineage=[grandparent], ledger=[file_of("z", "0")])
    told = warm_start.record(old, [file_of("b", "2")])
    assert told["lineage"][0] == grandparent
    assert (told["lineage"][1]["rows"], told["lineage"][1]["epochs"]) == (40, 1)
    assert [each["name"] for each in told["ledger"]] == ["z", "a"]
    other = trained_on(rows=40)
    other.weights = np.ones_like(other.weights)
    digests = [warm_start.record(m, [])["lineage"][-1]["sha256"] for m in (trained_on(), other)]
    assert digests[0] != digests[1]
    assert warm_start.record(None, []) == {}


def test_rows_that_were_all_seen_are_refused(caplog):
    old, some = trained_on(file_of("a", "1")), Files([], left=4)
    with caplog.at_level("INFO", "fastsoftmax"):
        warm_start.leave_out(some, old)
    assert some.entries == old.ledger
    assert "4 rows left out" in caplog.text
    with pytest.raises(DataError, match="was trained on all of these rows"):
        warm_start.leave_out(Files([], left=10), old)

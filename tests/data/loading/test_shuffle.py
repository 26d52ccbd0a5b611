"""The order of rows: permutations, the same for the same seed, whatever range is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.loading import shuffle
from fastsoftmax.data.loading.shuffle import (
    ShufflePlan,
    held_out,
    make_plan,
    piece_order,
    row_order,
    words,
)
from fastsoftmax.data.open import open_source
from fastsoftmax.options import Shuffling

# Written down once; a change here changes every model ever trained.
GOLDEN_WORDS = [213000021201967259, 4455796210202625458]
GOLDEN_ALL = [7, 9, 5, 1, 3, 6, 4, 0, 2, 8]
GOLDEN_WINDOW = [0, 8, 6, 7, 9, 2, 1, 3, 5, 4]
GOLDEN_PIECES = [0, 2, 1, 4, 5, 3]

ALL, WINDOW, OFF = ShufflePlan("all", 100), ShufflePlan("window", 10), ShufflePlan("off", 10)


def source(rows=10_000, width=25):
    return open_source(np.zeros((rows, width), np.float32), np.arange(rows) % 2)


class Elsewhere:
    """A source of rows that are not in memory."""

    resident = False

    def __init__(self, pieces, row_bytes):
        self.pieces, self.row_bytes = pieces, row_bytes
        self.rows = None if pieces is None else sum(pieces)
        self.decoded_bytes = None if pieces is None else self.rows * row_bytes

    def room(self, memory):
        return memory


def summary(plan):
    return plan.kind, plan.window


def plan_of(source, memory=10**7, **options):
    return make_plan(source, Shuffling(**options), memory)


def test_words_are_the_same_whatever_range_is_asked_for():
    want = words(7, 2, 3, 4, 0, 50)
    for start in range(9):
        for count in (0, 1, 7):
            assert_array_equal(words(7, 2, 3, 4, start, count), want[start : start + count])


def test_words_differ_by_seed_purpose_epoch_and_part():
    streams = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    drawn = [tuple(words(*stream, 0, 4)) for stream in streams]
    assert len(set(drawn)) == len(streams)


def test_words_are_those_of_philox():
    want = np.random.Philox(key=[5, 1], counter=[0, 2, 3, 0]).random_raw(6)
    assert_array_equal(words(5, 1, 2, 3, 0, 6), want)
    assert words(0, 0, 0, 0, 0, 2).tolist() == GOLDEN_WORDS


def test_the_order_is_the_one_it_always_was():
    assert row_order(ALL, 10, seed=0, epoch=0, index=0).tolist() == GOLDEN_ALL
    assert row_order(WINDOW, 10, seed=1, epoch=2, index=3).tolist() == GOLDEN_WINDOW
    assert piece_order(WINDOW, [1] * 6, seed=1, epoch=2) == GOLDEN_PIECES


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
def test_every_order_is_a_permutation(rows):
    for plan in (ALL, WINDOW, OFF):
        assert_array_equal(np.sort(row_order(plan, rows, 0, 1, 2)), np.arange(rows))
        assert_array_equal(np.sort(piece_order(plan, [3] * rows, 0, 1)), np.arange(rows))


def test_orders_differ_from_epoch_to_epoch_and_window_to_window():
    orders = [tuple(row_order(WINDOW, 50, 0, epoch, i)) for epoch in range(3) for i in range(3)]
    assert len(set(orders)) == 9


def test_every_place_is_as_likely_for_every_row():
    where = np.array([row_order(ALL, 5, seed, 0, 0) for seed in range(4000)])
    shares = np.array([np.bincount(where[:, t], minlength=5) for t in range(5)]) / 4000
    assert np.abs(shares - 0.2).max() < 5 * np.sqrt(0.16 / 4000)


def test_shuffle_off_is_source_order():
    assert_array_equal(row_order(OFF, 6, 0, 0, 0), np.arange(6))
    assert_array_equal(piece_order(OFF, [2, 2], 0, 0), [0, 1])


def test_only_a_windowed_plan_permutes_pieces():
    assert_array_equal(piece_order(ALL, [2] * 9, 0, 0), np.arange(9))


def test_held_out_rows_depend_on_seed_and_number_alone():
    mask = held_out(3, 0.25, 0, 10_000)
    assert_array_equal(held_out(3, 0.25, 4321, 100), mask[4321:4421])
    assert abs(mask.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 10_000)
    assert (held_out(4, 0.25, 0, 10_000) != mask).any()
    assert (mask <= held_out(3, 0.5, 0, 10_000)).all()


def test_rows_in_memory_are_shuffled_together_whatever_the_memory():
    plan = plan_of(source(rows=200_000), memory=10**7)
    assert (plan.kind, plan.window, plan.fits) == ("all", 200_000, False)
    assert plan_of(source(rows=100)).fits


def test_rows_that_fit_are_shuffled_together():
    row_bytes = 100 - shuffle.ROW_OVERHEAD
    assert summary(plan_of(Elsewhere((50_000, 10_000), row_bytes))) == ("all", 60_000)
    got = plan_of(Elsewhere((50_000, 10_001), row_bytes))
    assert summary(got) == ("window", 28672)


def test_a_window_of_wide_rows_is_no_larger_than_memory_allows():
    windows = [
        make_plan(Elsewhere((10**6,), row_bytes), Shuffling(), 10**9).window
        for row_bytes in (5 * 10**4, 10**5, 10**6, 10**9)
    ]
    assert windows == [4096, 2944, 256, 64]


def test_the_window_can_be_given():
    assert summary(plan_of(source(), shuffle_window=777)) == ("window", 777)
    assert summary(plan_of(source(), shuffle_window=10**6)) == ("all", 10_000)


def test_a_reader_of_unknown_length_is_windowed():
    assert summary(plan_of(Elsewhere(None, 72))) == ("window", 28672)


def test_off_keeps_the_window_and_the_source_order():
    assert summary(plan_of(source(), shuffle="off")) == ("off", 10_000)
    assert summary(plan_of(Elsewhere(None, 72), shuffle="off")) == ("off", 28672)
    assert plan_of(Elsewhere((10**6,), 72), shuffle="off").window == 28672

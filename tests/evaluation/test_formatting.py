"""Lines of text say what is so, and hold nothing that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsoftmax.evaluation.formatting import (
    aligned,
    duration,
    printable,
    shortened,
)


@given(st.text())
def test_what_is_printable_is_one_line_without_commands(text):
    assert printable(text).isprintable()


def test_printable_spells_out_what_a_terminal_would_obey():
    assert printable("a\x1b[31mb\n\u202eé\ud800") == "a\\x1b[31mb\\n\\u202eé\\ud800"


def test_values_stand_below_each_other():
    assert aligned([("a", 1), ("long\n", "x")]) == ["a       1", "long\\n  x"]
    assert aligned([]) == []


def test_long_lists_are_cut_and_counted():
    assert shortened(range(3)) == "0, 1, 2"
    assert shortened(range(1234)).endswith("8, 9, ... (1,234 in all)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (1.234, "1.23 s"),
        (9.999, "10.0 s"),
        (59.9, "59.9 s"),
        (59.99, "1:00"),
        (61, "1:01"),
        (3661, "1:01:01"),
    ],
)
def test_times_are_short(seconds, text):
    assert duration(seconds) == text

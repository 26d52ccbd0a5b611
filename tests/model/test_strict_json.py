"""JSON that nobody vouches for is read strictly, or refused with a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsoftmax.model import strict_json
from fastsoftmax.model.strict_json import (
    MalformedError,
    is_finite,
    is_number,
    is_text,
    list_of,
    object_of,
    parse_json,
    require,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_comes_back(value):
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[1e999]", "too large"),
        ("[" + "1" * 400 + "]", "too many digits"),
        ("[1." + "1" * 400 + "]", "too many digits"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 40 + "1" + "]" * 40, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
        ("{", "Expecting"),
        (b"\xff", "utf-8"),
    ],
)
def test_what_could_not_be_said_again_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_json(text)


def test_brackets_are_counted_before_they_cost_anything(monkeypatch):
    monkeypatch.setattr(strict_json, "MOST_BRACKETS", 3)
    assert parse_json("[[[1]]]") == [[[1]]]
    with pytest.raises(ValueError, match="too many"):
        parse_json("[[], [], []]")


def test_truth_is_no_number_and_infinity_is_not_finite():
    assert [is_number(value) for value in (1, 1.5, True, "1", None)] == [True, True, *[False] * 3]
    assert is_finite(2)
    assert not is_finite(float("inf"))


def test_half_of_a_surrogate_pair_is_no_text():
    assert is_text("é")
    assert not is_text("\ud800")
    assert not is_text(b"a")


def test_what_does_not_fit_is_malformed():
    assert object_of({"a": 1}, {"a"}, "odd") == {"a": 1}
    assert list_of([1, 2], is_number, "odd") == [1, 2]
    require(True, "odd")
    for call in (
        lambda: object_of({"a": 1, "b": 2}, {"a"}, "odd"),
        lambda: object_of([], set(), "odd"),
        lambda: list_of([1, "2"], is_number, "odd"),
        lambda: require(False, "odd"),
    ):
        with pytest.raises(MalformedError, match="odd"):
            call()

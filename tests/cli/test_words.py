"""Lists in one word are read as they are written, whatever the values are."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsoftmax.cli.words import as_factors, as_list, as_text, factors, listed, split_settings

# What an argument can hold: anything but a null byte, bytes that are no UTF-8 as lone surrogates.
# On a busy machine an example takes as long as it takes.
PATIENT = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
ANYTHING = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.just("\udcff")
)


@PATIENT
@given(st.lists(ANYTHING))
def test_a_list_is_read_as_it_is_written(values):
    assert listed(as_list(values)) == values


@PATIENT
@given(st.dictionaries(ANYTHING, st.floats(0, 1e300)))
def test_factors_are_read_as_they_are_written(numbers):
    assert factors(as_factors(numbers)) == numbers


@PATIENT
@given(st.lists(st.dictionaries(ANYTHING, st.floats(0, 9), min_size=1), min_size=1))
def test_settings_are_separated_by_semicolons_outside_of_quotes(settings):
    # A value with a semicolon in it is quoted by whoever types it.
    quoted = [
        ",".join('"' + f"{n}={x}".replace('"', '""') + '"' for n, x in s.items()) for s in settings
    ]
    assert [factors(word) for word in split_settings(";".join(quoted))] == settings


def test_blanks_after_a_comma_are_left_out_unless_quoted():
    assert listed('a, b," c", "d,e"') == ["a", "b", " c", "d,e"]
    assert listed("") == []
    assert split_settings('a=1,"b;c=2";balanced;') == ['a=1,"b;c=2"', "balanced", ""]


@pytest.mark.parametrize("word", ['"a', '"a"b', "a\nb", '"a" ,b'])
def test_wrong_quotes_are_refused_with_the_rule(word):
    with pytest.raises(
        ValueError, match="is no list: put names with commas, quotes or line breaks"
    ):
        listed(word)


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("a=1,2", "'2' is no factor of a class: write name=number"),
        ("a=1,a=2", "'a' has two factors"),
        ("a=x", "'x' is not a number"),
    ],
)
def test_factors_that_are_none_are_refused(word, rule):
    with pytest.raises(ValueError, match=rule):
        factors(word)


def test_text_is_utf_8_whatever_the_locale_took_it_to_be():
    assert as_text("é") == "é"
    assert as_text(as_text("é").encode().decode("ascii", "surrogateescape")) == "é"
    assert as_text("\udcff") == "\udcff"

"""Characters are what Unicode 14.0 says of them, whatever Python runs."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from fastsoftmax.kernels.characters import (
    ALONE,
    BETWEEN,
    CODE_POINTS,
    KIND_BITS,
    MARK,
    UNICODE,
    WORD,
    character_table,
)
from tests.characters import kind_of, lower_of

KINDS = (1 << KIND_BITS) - 1


@pytest.mark.skipif(
    not unicodedata.unidata_version.startswith(UNICODE), reason="Python has other tables"
)
def test_the_table_is_that_of_unicode():
    kinds = np.fromiter(map(kind_of, range(CODE_POINTS)), np.int32)
    lower = np.fromiter(map(lower_of, range(CODE_POINTS)), np.int32)
    np.testing.assert_array_equal(character_table(True) & KINDS, kinds)
    np.testing.assert_array_equal(character_table(True) >> KIND_BITS, lower)
    np.testing.assert_array_equal(character_table(False) >> KIND_BITS, np.arange(CODE_POINTS))


def test_lower_case_is_of_the_same_kind_and_its_own_lower_case():
    kinds, lower = character_table(True) & KINDS, character_table(True) >> KIND_BITS
    np.testing.assert_array_equal(kinds[lower], kinds)
    np.testing.assert_array_equal(lower[lower], lower)


def test_lower_case_is_at_most_half_as_long_again():
    lower = character_table(True) >> KIND_BITS
    bounds = (0x80, 0x800, 0x10000)
    size, lowered = (
        1 + np.searchsorted(bounds, c, "right") for c in (np.arange(len(lower)), lower)
    )
    assert (2 * lowered <= 3 * size).all()


@pytest.mark.parametrize(
    ("signs", "kind"),
    [
        ("aZß9²_ÉЖשع한ǅ٣", WORD),
        ("中文字あア가"[:5] + "กລខမ☺©😀", ALONE),
        ("\u0301\u0e34\u30fc\u200d\ufe0f", MARK),
        (" \t\n.,-'\"$+<|\u00a0，。—", BETWEEN),
    ],
)
def test_characters_of_many_scripts_are_told_apart(signs, kind):
    assert {int(character_table(True)[ord(sign)] & KINDS) for sign in signs} == {kind}

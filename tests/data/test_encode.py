"""Labels of every type become class indices; a label or weight that will not do is named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.encode import Encoder, GivenLabels, kind_of, weights_of
from fastsoftmax.data.label_stats import Labelled, scan_rows
from fastsoftmax.data.memory import beside
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes, given_classes

NUMBERS = [3, 1, 3, 7, 1]
STRINGS = ["cat", "ant", "cat", "ox", "ant"]
INDICES = [1, 0, 1, 2, 0]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def where(row):
    return f"row {row}"


def scan(labels, weights=None, classes=None, held_out=None, cut=2):
    """Scan labels cut into pieces of `cut` rows."""
    target, weight = beside(labels, "target"), beside(weights, "weight") if weights else None
    n = len(target.array)
    rows = [
        Labelled(
            start // cut,
            start,
            target.array.slice(start, cut),
            weight.array.slice(start, cut) if weight else None,
            lambda row, start=start: where(start + row),
        )
        for start in range(0, n, cut)
    ]
    return scan_rows(rows, GivenLabels(target, weight), classes, held_out)


@pytest.mark.parametrize("kind", [*INTEGERS, "float16", "float32", "float64"])
def test_numbers_of_any_type_are_found_and_encoded(kind):
    labels = np.array(NUMBERS, dtype=kind)
    classes = scan(labels).classes
    assert classes == Classes(kind if kind in INTEGERS else "int64", (1, 3, 7))
    assert_array_equal(Encoder(classes)(pa.array(labels), "y", where), INDICES)


def string_arrays():
    plain = pa.array(STRINGS)
    yield plain
    yield plain.cast(pa.large_string())
    yield plain.dictionary_encode()
    yield pa.array(["zebra", *STRINGS]).dictionary_encode()[1:]
    yield np.array(STRINGS)
    yield np.array(STRINGS, dtype=object)
    yield STRINGS
    if hasattr(pa, "string_view"):
        view = pa.array(STRINGS, pa.string_view())
        yield view
        dictionary = pa.array(["ant", "cat", "ox"], pa.string_view())
        yield pa.DictionaryArray.from_arrays(pa.array(INDICES), dictionary)


@pytest.mark.parametrize("labels", list(string_arrays()), ids=lambda labels: str(type(labels)))
def test_strings_of_any_type_are_found_and_encoded(labels):
    classes = scan(labels).classes
    assert classes == Classes("string", ("ant", "cat", "ox"))
    got = Encoder(classes)(beside(labels, "target").array, "y", where)
    assert got.dtype == np.int32
    assert_array_equal(got, INDICES)


def test_booleans_and_dictionaries_of_numbers_are_labels():
    assert scan([True, False, True]).classes == Classes("bool", (False, True))
    coded = pa.array([30, 10, 30], pa.int16()).dictionary_encode()
    assert scan(coded).classes == Classes("int16", (10, 30))


def test_strings_are_ordered_by_their_bytes():
    assert scan(["é", "z", "Z", "a"]).classes.values == ("Z", "a", "z", "é")


def test_the_scan_counts_rows_and_weights_in_each_piece():
    found = scan(NUMBERS, [1.0, 0.0, 2.0, 0.5, 1.0])
    assert_array_equal(found.counts, [2, 2, 1])
    assert_array_equal(found.segments.pieces, [0, 1, 2])
    assert_array_equal(found.segments.counts.sum(axis=1), [2, 2, 1])
    assert_array_equal(found.mass, [1.0, 3.0, 0.5])
    assert found.positive == 4
    assert found.mean_weight() == 4.5 / 4


def test_the_scan_leaves_held_out_rows_out_of_its_numbers_but_checks_them():
    mask = np.array([True, False, False, True, False])
    found = scan(NUMBERS, held_out=lambda start, count: mask[start : start + count])
    assert found.classes.values == (1, 3, 7)
    assert_array_equal(found.counts, [2, 1, 0])
    assert_array_equal(found.segments.counts.sum(axis=1), [1, 1, 1])
    assert found.positive == 3


def test_the_scan_of_given_classes_counts_those_without_rows():
    found = scan(NUMBERS, classes=given_classes([0, 7, 3, 1]))
    assert_array_equal(found.counts, [0, 2, 2, 1])


def test_labels_narrower_than_the_classes_are_compared_by_value():
    encode = Encoder(given_classes([-1, 3, 300]))
    assert_array_equal(encode(pa.array([3, 3], pa.uint8()), "y", where), [1, 1])
    assert_array_equal(encode(pa.array([300, -1], pa.int16()), "y", where), [2, 0])


def test_classes_above_int63_are_kept_exactly():
    labels = np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64)
    assert scan(labels).classes.values == (2**64 - 2, 2**64 - 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, None, 2], "row 1: the target is null. Use rows without nulls"),
        (["a", None], "row 1: the target is null"),
        (pa.array(["a", None]).dictionary_encode(), "row 1: the target is null"),
        ([1.0, 2.0, 2.5], "row 2: the target is 2.5, no whole number"),
        ([1.0, float("nan")], "row 1: the target is nan, no whole number"),
        ([1.0, float("inf")], "row 1: the target is inf, no whole number"),
        ([b"a", b"b"], "the target holds bytes: cast it to strings"),
        (np.array([b"a", b"b"]), "the target holds bytes"),
        (
            pa.array([1, 2], pa.timestamp("s")),
            "the target is of type timestamp[s], which is no label",
        ),
        ([None, None], "the target is of type null, which is no label"),
        ([1, 1, 1], "the labels hold the one class 1; training needs at least two classes."),
        ([1, "a"], "the target is neither the name of a column nor an array of one type"),
    ],
    ids=str,
)
def test_labels_that_will_not_do_are_named(labels, message):
    with pytest.raises(DataError) as caught:
        scan(labels)
    assert message in str(caught.value)


def test_an_unknown_label_is_named_with_its_place_and_the_classes():
    classes = given_classes(list(range(10)))
    with pytest.raises(DataError) as caught:
        scan([1, 2, 77], classes=classes)
    want = "row 2: the target is 77, none of the 10 classes (0, 1, 2, 3, 4, ...)."
    assert str(caught.value).startswith(want)


def test_labels_of_another_kind_than_the_classes_are_refused():
    with pytest.raises(DataError, match="holds string labels, but the classes are of kind integer"):
        scan(["1", "2"], classes=given_classes([1, 2]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -2.0], "row 1: the weight is -2.0; weights are finite numbers >= 0."),
        ([1.0, float("nan")], "row 1: the weight is nan"),
        ([float("inf"), 1.0], "row 0: the weight is inf"),
        ([1.0, None], "row 1: the weight is null"),
        ([0.0, 0.0], "no row has a positive weight"),
        (["1", "2"], "the weight is of type string; weights are numbers >= 0."),
    ],
    ids=str,
)
def test_weights_that_will_not_do_are_named(weights, message):
    with pytest.raises(DataError) as caught:
        scan([0, 1], weights)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint64(), pa.float16(), pa.bool_(), pa.decimal128(20)]
)
def test_weights_of_any_number_become_float64(kind):
    weights = pa.array(np.array([1, 0, 1], "f2") if kind == pa.float16() else [1, 0, 1])
    got = weights_of(weights.cast(kind), "w", where)
    assert got.dtype == np.float64
    assert_array_equal(got, [1.0, 0.0, 1.0])


def test_the_kind_of_every_label_type_is_one_of_a_class():
    assert kind_of(pa.int8(), "y") == "int8"
    assert kind_of(pa.float16(), "y") == "int64"
    assert kind_of(pa.dictionary(pa.int8(), pa.large_string()), "y") == "string"

"""Options, schedules and classes: each value is checked, each formula computed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastsoftmax.errors import DataError, OptionError, UnknownOptionError
from fastsoftmax.labels import given_classes, sort_classes
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.options import OPTIONS, TrainOptions, parse_bytes


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1000", 1000),
        (5, 5),
        ("512MB", 512 * 10**6),
        ("1GiB", 2**30),
        ("1.5 kb", 1500),
        ("2TB", 2e12),
    ],
)
def test_memory_is_bytes_with_or_without_a_unit(text, want):
    assert parse_bytes(text) == want


def test_more_than_a_machine_can_count_is_refused():
    for text in ("9" * 400, "9223372036854775808", "1" + "0" * 12 + "TB"):
        with pytest.raises(OptionError, match=r"memory must be less than 2\^63 bytes"):
            parse_bytes(text)
    for name in ("batch_size", "epochs", "threads", "patience", "shuffle_window"):
        with pytest.raises(OptionError, match=rf"{name} must be less than 2\^63, got 92"):
            TrainOptions.of(**{name: 2**63})


@pytest.mark.parametrize("text", ["", "GB", "1 parsec", "-1MB", "1e9"])
def test_memory_that_means_nothing_is_refused(text):
    with pytest.raises(OptionError, match="memory must be bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": 2.0}, "epochs must be"),
        ({"batch_size": True}, "batch_size must be"),
        ({"learning_rate": 0.0}, "learning_rate must be a number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"halflife": -1}, "halflife must be"),
        ({"l2": -1e-3}, "l2 must be >= 0, got -0.001"),
        ({"holdout": 1.0}, "holdout must be in"),
        ({"holdout": 0}, "holdout must be in"),
        ({"seed": -1}, "seed must be"),
        ({"threads": 0}, "threads must be"),
        ({"memory": "1MB"}, "memory must be at least 10MB"),
        ({"schedule": "step"}, "schedule must be one of auto, constant, inverse, linear, cosine"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"shuffle": "yes"}, "shuffle must be one of"),
        ({"average": "no"}, "average must be one of"),
        ({"max_seconds": 0}, "max_seconds must be"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_rule(given, rule):
    with pytest.raises(OptionError, match=rule) as caught:
        TrainOptions.of(**given)
    assert caught.value.exit_code == 2


def test_a_value_that_no_option_can_have_is_refused():
    for value in (np.arange(3), object(), [1], {1, 2}, 1j, b"x"):
        for name in ("l2", "class_weight", "schedule", "threads"):
            with pytest.raises(OptionError, match=f"{name} must be a number, a word or a dict"):
                TrainOptions.of(**{name: value})


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"adaptive": True, "batch_size": 8}, "adaptive=True takes a step per row"),
        ({"standardize": True, "scaling": "off"}, "scaling=off forbids"),
        ({"max_step": "far"}, "max_step must be one of auto, off, cap, implicit"),
        ({"max_step": "cap", "batch_size": 8}, "max_step=cap bounds the step of one row"),
        ({"max_step": "implicit", "adaptive": True}, "max_step=implicit bounds the step of one"),
        ({"solver": "lbfgs", "batch_size": 8}, "batch_size is of the solver sgd"),
    ],
)
def test_options_that_exclude_each_other_say_so(given, rule):
    with pytest.raises(OptionError, match=rule):
        TrainOptions.of(**given)


def test_a_given_step_size_leaves_everything_else_simple():
    options = TrainOptions.of(learning_rate=0.1).resolved(one_pass=False)
    assert (
        options.steps.epochs,
        options.steps.schedule,
        options.penalty.l2,
        options.steps.average,
    ) == (
        10,
        "linear",
        0,
        False,
    )
    assert (options.penalty.scaling, options.penalty.standardize) == ("off", False)


def test_numbers_of_numpy_are_numbers():
    options = TrainOptions.of(learning_rate=np.float32(0.5), epochs=np.int64(3))
    assert options == TrainOptions.of(learning_rate=0.5, epochs=3)
    assert type(options.steps.epochs) is int


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean batch_size"):
        TrainOptions.of(batchsize=3)
    with pytest.raises(TypeError, match=r"there is no option 'zzz'$"):
        TrainOptions.of(zzz=3)


def test_options_tell_which_of_them_are_not_their_defaults():
    given = {"epochs": 3, "fit_intercept": False, "average": True, "learning_rate": 0.5}
    assert TrainOptions.of(**given, l1=0.0).given() == given
    assert TrainOptions.of().given() == {}


def test_only_what_shapes_the_model_is_recorded():
    kept = TrainOptions.of(threads=3, memory="2GB", verbose=True).shaping()
    assert not {"threads", "memory", "verbose", "max_seconds", "cache"} & set(kept)
    assert kept == TrainOptions.of().shaping()


@pytest.mark.parametrize(
    ("kind", "want"),
    [
        ("constant", [2, 2, 2]),
        ("inverse", [2, 2 / 1.5, 1]),
        ("linear", [2, 1.5, 1]),
        ("cosine", [2, 1 + np.cos(np.pi / 4), 1]),
    ],
)
def test_schedules_are_their_formulas(kind, want):
    schedule = Schedule(kind, 2.0, planned=200, halflife=100)
    assert_allclose(schedule(np.array([0, 50, 100])), want)


def test_classes_are_sorted_by_value_and_strings_by_their_bytes():
    assert given_classes([3, 1, 2.0]).values == (1, 2, 3)
    assert given_classes(["b", "é", "a", "Z"]).values == ("Z", "a", "b", "é")
    assert given_classes([True, False]).values == (False, True)
    assert sort_classes("uint8", [5, 5, 2]).array().dtype == np.uint8
    assert given_classes(["a", "b"]).array().tolist() == ["a", "b"]


@pytest.mark.parametrize("values", [[1], [], [1, 1.0]])
def test_one_class_leaves_nothing_to_learn(values):
    with pytest.raises(DataError, match="two classes"):
        given_classes(values)


@pytest.mark.parametrize("values", [[1, "a"], [0.5, 1], [None, 1]])
def test_classes_of_mixed_or_broken_kinds_are_refused(values):
    with pytest.raises(DataError, match="all integers, all strings or all booleans"):
        given_classes(values)


def test_standardize_beside_a_given_step_size_scales_the_features():
    options = TrainOptions.of(learning_rate=0.1, standardize=True).resolved(one_pass=False)
    assert (options.penalty.scaling, options.penalty.standardize) == ("auto", True)
    with pytest.raises(OptionError, match="scaling=off forbids"):
        TrainOptions.of(learning_rate=0.1, standardize=True, scaling="off")


def test_every_option_stands_in_one_group():
    assert list(OPTIONS) == list(TrainOptions().flat())
    for name, declared in OPTIONS.items():
        assert TrainOptions().flat()[name] == declared.default


@pytest.mark.parametrize("sparse", [True, 1.0, [3], {"x": 1.0}, {"x": ["i"]}, {"x": ("i", "")}])
def test_what_names_no_sparse_columns_is_refused(sparse):
    with pytest.raises(OptionError, match="sparse lists columns, or gives two columns to each"):
        TrainOptions.of(sparse=sparse)

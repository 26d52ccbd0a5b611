"""Arguments become values by name, and a mistake becomes one sentence."""

from __future__ import annotations

import pytest

from fastsoftmax.cli.parsers import (
    inspect_parser,
    nearest,
    parsed,
    sweep_parser,
    train_parser,
)
from fastsoftmax.errors import OptionError, UnknownOptionError

TRAIN = ["a.parquet", "--target", "y", "-o", "m"]


def test_only_the_options_that_are_given_reach_the_run():
    args = parsed(train_parser(), [*TRAIN, "--l2", "0.5", "--no-fit-intercept"])
    assert (args["data"], args["target"], args["output"]) == (["a.parquet"], "y", "m")
    assert (args["l2"], args["fit_intercept"]) == (0.5, False)
    assert "epochs" not in args


def test_data_may_stand_on_both_sides_of_options():
    args = parsed(inspect_parser(), ["a", "--json", "b"])
    assert (args["data"], args["json"]) == (["a", "b"], True)


def test_a_value_may_begin_with_dashes():
    given = ["--classes", "-1,1", "--class-weight", "-1=2,1=1", "--weight", "--w", "-o", "-"]
    args = parsed(train_parser(), [*TRAIN, *given, "--features=--target", "--init=--"])
    assert (args["classes"], args["class_weight"]) == (["-1", "1"], {"-1": 2.0, "1": 1.0})
    assert (args["weight"], args["output"], args["init"]) == ("--w", "-", "--")
    assert args["features"] == ["--target"]


def test_after_two_dashes_come_paths_that_may_begin_with_one():
    args = parsed(inspect_parser(), ["a", "--json", "--", "-b", "--", "--json"])
    assert args["data"] == ["a", "./-b", "./--", "./--json"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["--target", "--quiet"],
            "--target has no value before --quiet; a value that is called so",
        ),
        (["--target", "--l2=1"], "--target has no value before --l2; .* written --target=--l2=1"),
        (["--target", "--", "a"], "--target has no value before --;"),
        (
            ["--weight", "--epoch", "3"],
            "no option --epoch; did you mean --epochs?.*--weight=--epoch",
        ),
        (["a", "--target"], "--target has no value; see --help"),
    ],
)
def test_an_option_without_its_value_is_named(given, sentence):
    with pytest.raises(OptionError, match=sentence):
        parsed(train_parser(), given)


def test_names_with_commas_are_quoted():
    args = parsed(train_parser(), [*TRAIN, "--features", 'a,"b,c", d'])
    assert args["features"] == ["a", "b,c", "d"]


def test_factors_of_classes_are_numbers_by_name():
    args = parsed(train_parser(), [*TRAIN, "--class-weight", "a=2,b=x=0.5"])
    assert args["class_weight"] == {"a": 2.0, "b=x": 0.5}


def test_a_sweep_takes_lists_where_settings_may_differ():
    given = ["--l2", "0,1e-4", "--schedule", "linear", "--class-weight", "a=2,b=1;balanced"]
    args = parsed(sweep_parser(), [*TRAIN, *given])
    assert args["l2"] == [0.0, 1e-4]
    assert args["schedule"] == "linear"
    assert args["class_weight"] == [{"a": 2.0, "b": 1.0}, "balanced"]
    args = parsed(sweep_parser(), [*TRAIN, "--class-weight", '"a;b=2";a;b=1'])
    assert args["class_weight"] == [{"a;b": 2.0}, "a", {"b": 1.0}]


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (["--epochs", "two"], "--epochs: 'two' is not a whole number"),
        (["--l2", "x"], "--l2: 'x' is not a number"),
        (["--class-weight", "a=x"], "--class-weight: 'x' is not a number"),
        (
            ["--class-weight", "a=1,2"],
            "--class-weight: '2' is no factor of a class: write name=number",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_sentence(given, rule):
    with pytest.raises(OptionError) as error:
        parsed(train_parser(), [*TRAIN, *given])
    assert str(error.value) == f"{rule}; see fastsoftmax train --help"


def test_an_unknown_option_is_named_before_anything_else():
    with pytest.raises(UnknownOptionError, match=r"no option --eposch; did you mean --epochs\?"):
        parsed(train_parser(), ["--eposch", "3"])


def test_the_nearest_name_is_offered_only_where_one_is_near():
    assert nearest("trian", ["train", "sweep"]) == "; did you mean train?"
    assert nearest("zzz", ["train", "sweep"]) == "; see --help"

"""A file of arguments is read as the command line would be, and a run can be written as one."""

from __future__ import annotations

import pytest

from fastsoftmax.cli.config import as_toml
from fastsoftmax.cli.parsers import parsed, sweep_parser, train_parser
from fastsoftmax.errors import OptionError, UnknownOptionError


@pytest.fixture
def config(tmp_path):
    def written(text):
        path = tmp_path / "run.toml"
        path.write_text(text)
        return f"--config={path}"

    return written


RUN = """
data = "a.parquet"
target = "y"
output = "m.safetensors"
epochs = 5
learning-rate = 0.5
average = true
validation = ["v.parquet"]
classes = [1, 2]
features = ["a", "b"]
class_weight = {a = 2.0}
memory = "512MB"
"""


def test_a_file_gives_all_that_the_command_line_does(config):
    args = parsed(train_parser(), [config(RUN)])
    assert (args["data"], args["target"], args["output"]) == (["a.parquet"], "y", "m.safetensors")
    assert (args["epochs"], args["learning_rate"], args["average"]) == (5, 0.5, True)
    assert (args["validation"], args["classes"]) == (["v.parquet"], ["1", "2"])
    assert (args["features"], args["class_weight"]) == (["a", "b"], {"a": 2.0})
    assert args["memory"] == "512MB"
    assert "l2" not in args


def test_the_command_line_wins_over_the_file(config):
    given = ["b.parquet", "--epochs", "7", "--no-average", "--validation", "w", "--features", "c"]
    args = parsed(train_parser(), [*given, config(RUN)])
    assert (args["data"], args["epochs"], args["average"]) == (["b.parquet"], 7, False)
    assert (args["validation"], args["features"]) == (["w"], ["c"])
    args = parsed(train_parser(), ["--quiet", config(f"{RUN}verbose = true\n")])
    assert args["quiet"]
    assert not args["verbose"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epoch = 3", "run.toml: there is no option epoch; did you mean epochs"),
        ("json = true", "run.toml: there is no option json"),
        ("target = 3", "run.toml: target must be text, got 3"),
        ("features = [[1]]", "run.toml: features must be a list of words"),
        ("epochs = ", "run.toml: it is no TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(config, text, sentence):
    with pytest.raises((OptionError, UnknownOptionError), match=sentence):
        parsed(train_parser(), ["a", "--target", "y", "-o", "m", config(text)])


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(OptionError, match="nowhere: it cannot be read: No such file"):
        parsed(train_parser(), ["a", "--target", "y", "-o", "m", "--config", "nowhere"])


def test_what_neither_the_file_nor_the_command_line_says_is_missed(config):
    with pytest.raises(OptionError, match=r"required: (DATA, )?--target"):
        parsed(train_parser(), [config("epochs = 3")])


def test_a_sweep_takes_lists_from_a_file(config):
    args = parsed(sweep_parser(), [config('data = "a"\ntarget="y"\noutput="m"\nl2 = [0, 1e-4]')])
    assert args["l2"] == [0, 1e-4]


def test_what_is_written_is_read_again(config):
    values = {
        "data": ["a b.parquet", 'q"uote\\', "Zürich\n\x7f"],
        "target": "y",
        "output": "m",
        "weight": None,
        "l2": 1e-300,
        "epochs": 3,
        "average": False,
        "class_weight": {"a = b": 2.0, "c": 0.5},
    }
    args = parsed(train_parser(), [config("\n".join(as_toml(values)))])
    assert {name: args[name] for name in values} == values

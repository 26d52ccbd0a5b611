"""The command line as a user runs it: results, exit codes, one sentence for each failure."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax.cli.console import ERASE_LINE
from fastsoftmax.cli.main import COMMANDS, main, without_idle_threads
from fastsoftmax.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
ROWS = 300


def make_rows(seed: int = 0, **columns) -> pa.Table:
    """Return rows that can be learnt: a number, a vector, a class, a weight, a name."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, ROWS)
    v = random.normal(size=(ROWS, 2)) + np.array([[0, 0], [2, 0], [0, 2]])[y]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), 2)
    return pa.table(
        {
            "a": random.normal(size=ROWS) + y,
            "v": vectors,
            "label": y,
            "w": np.where(y == 1, 2.0, 1.0),
            "id": np.arange(ROWS),
            **columns,
        }
    )


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with training and test data."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(make_rows(0), "train.parquet", row_group_size=100)
    pq.write_table(make_rows(1), "test.parquet")
    return tmp_path


TRAIN = ["train", "train.parquet", "--target", "label", "-o", "m.safetensors", "--epochs", "2"]
FEATURES = ["--features", "a,v"]


@pytest.fixture
def trained(here, capsys) -> Path:
    """The folder with a model in it."""
    assert main([*TRAIN, *FEATURES]) == 0
    capsys.readouterr()
    return here


def said(capsys, argv: list[str], code: int) -> str:
    """Run a command that must fail; return the one sentence on stderr."""
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastsoftmax: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


def run(*argv: str, **options) -> subprocess.CompletedProcess:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fastsoftmax", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# What there is to ask before anything is done.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: fastsoftmax {command}" in out
    assert f"example:\n  fastsoftmax {command} " in out


def test_the_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  fastsoftmax ([\w-]+)", out, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_tells_the_version(command, capsys):
    assert main([*command, "--version"]) == 0
    assert capsys.readouterr().out == f"fastsoftmax {fastsoftmax.__version__}\n"


def processor_seconds():
    """Return those of all processes that this one has waited for: on the wall are others' too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_comes_at_once():
    seconds = []
    for _ in range(5):
        start = processor_seconds()
        assert run("--help").returncode == 0
        seconds.append(processor_seconds() - start)
    assert min(seconds) <= 0.3


def test_every_option_of_a_run_is_on_the_command_line(capsys):
    main(["train", "--help"])
    out = capsys.readouterr().out
    for option in OPTIONS.values():
        assert f"--{option.name.replace('_', '-')}" in out


# The whole way.


def test_train_writes_a_model_and_says_how_it_went(here, capsys):
    assert main([*TRAIN, *FEATURES, "--holdout", "0.1"]) == 0
    out, err = capsys.readouterr()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert list(facts) == [
        "rows", "time", "speed", "training", "validation", "model", "to repeat",
    ]  # fmt: skip
    assert facts["model"] == "m.safetensors"
    said = [line[:9] for line in err.splitlines()]
    assert [line for line in said if line != "compiling"] == ["epoch 1/2", "epoch 2/2"]
    model = fastsoftmax.load("m.safetensors")
    assert model.feature_names == ("a", "v[0]", "v[1]")
    assert model.record["target"] == "label"
    assert [line["epoch"] for line in model.history] == [1, 2]


def test_a_run_over_numbers_loads_nothing_heavy_that_it_does_not_use(here):
    argv = ["train", "train.parquet", "--target", "label", "--features", "a", "-o", "m"]
    heavy = {"numba", "pandas", "scipy", "sklearn", "pyarrow.compute", "pyarrow.dataset"}
    code = (
        "import sys; from fastsoftmax.cli.main import main\n"
        f"main({argv})\n"
        f"print(*sorted({heavy} & set(sys.modules)))"
    )
    for _ in range(2):  # the first may have to compile
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "", done.stdout


def test_a_process_does_not_look_for_garbage_as_it_ends(here):
    argv = ["fastsoftmax", "inspect", "no-such-model"]
    code = (
        "import gc, sys; from fastsoftmax.__main__ import run\n"
        f"sys.argv = {argv}\n"
        "print(run(), gc.get_freeze_count() > 1000, gc.get_stats()[2]['collections'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "3 True 0\n"
    assert "no-such-model" in done.stderr


def test_products_get_no_threads_that_would_idle_unless_somebody_wants_them(monkeypatch):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with without_idle_threads():
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    with without_idle_threads():
        assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


def test_the_line_it_prints_repeats_the_run(here, capsys):
    options = "--l2 0.001 --no-fit-intercept --average --seed 7 --dtype float64 --weight w"
    lists = "--features v,a --classes 0,1,2,3 --validation test.parquet"
    assert main([*TRAIN, *options.split(), *lists.split()]) == 0
    line = re.search(r"to repeat +(.*)", capsys.readouterr().out)[1]
    first = Path("m.safetensors").read_bytes()
    Path("m.safetensors").unlink()
    assert main(shlex.split(line)[1:]) == 0
    assert Path("m.safetensors").read_bytes() == first
    model = fastsoftmax.load("m.safetensors")
    assert model.record["options"]["l2"] == 0.001
    assert model.record["weight"] == "w"
    assert model.dtype == np.float64
    assert not model.intercept.any()
    assert model.feature_names == ("v[0]", "v[1]", "a")
    assert list(model.classes) == [0, 1, 2, 3]
    assert "validation_log_loss" in model.history[0]


def test_the_command_line_trains_what_python_trains(trained):
    model = fastsoftmax.train("train.parquet", "label", features=["a", "v"], epochs=2)
    model.save("python.safetensors")
    assert Path("python.safetensors").read_bytes() == Path("m.safetensors").read_bytes()


def test_a_model_can_be_trained_on(trained, capsys):
    argv = ["train", "train.parquet", "--target", "label", "-o", "n.safetensors", *FEATURES]
    argv += ["--init", "m.safetensors", "--epochs", "1"]
    assert "was trained on all of these rows" in said(capsys, argv, 3)
    assert main([*argv, "--seen", "again"]) == 0
    before, after = (fastsoftmax.load(f"{name}.safetensors") for name in "mn")
    assert after.history[0]["log_loss"] < before.history[0]["log_loss"]


def test_evaluate_prints_one_json_object(trained, capsys):
    assert main(["evaluate", "m.safetensors", "test.parquet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) >= {"rows", "log_loss", "accuracy", "log_loss_prior"}
    assert report["rows"] == ROWS
    assert report["accuracy"] > 0.7
    assert report["log_loss"] < report["log_loss_prior"]


def test_evaluate_prints_numbers_and_tables(trained, capsys):
    argv = ["evaluate", "m.safetensors", "test.parquet", "--target", "label", "--weight", "w"]
    assert main([*argv, "--top-k", "2"]) == 0
    numbers, bins, scores, confusion = capsys.readouterr().out.split("\n\n")
    assert re.fullmatch(
        r"rows               300\n"
        r"log-loss           0\.\d{4} \(class frequencies alone: 1\.\d{4}\)\n"
        r"accuracy           \d\d\.\d\d %\ntop-2 accuracy     \d\d\.\d\d %\n"
        r"macro F1           0\.\d{4}\nweighted F1        0\.\d{4}\ncalibration error  0\.\d{4}",
        numbers,
    )
    assert re.match(r"confidence +rows +weight +mean +accuracy\n0\.\d\d to 0\.\d\d +\d", bins)
    assert re.fullmatch(
        r"class  precision  recall      F1  support(\n\d( +0\.\d{4}){3} +\d+){3}", scores
    )
    assert re.fullmatch(r"true \\ predicted( +\d){3}(\n\d( +\d+){3}){3}\n", confusion)
    for lines in (bins, scores, confusion):
        assert len({len(line) for line in lines.splitlines()}) == 1


def test_calibrate_writes_a_model_and_says_what_it_gains(trained, capsys):
    argv = ["calibrate", "m.safetensors", "test.parquet", "--weight", "w"]
    assert main([*argv, "-o", "c.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in out.splitlines())
    assert list(facts) == ["temperature", "log-loss", "calibration error", "rows", "model"]
    after, before = map(float, re.findall(r"\d\.\d{4}", facts["log-loss"]))
    assert after <= before
    model, given = (fastsoftmax.load(f"{name}.safetensors") for name in "cm")
    want = fastsoftmax.calibrate(given, "test.parquet", "label", "w")
    assert_array_equal(model.coef, want.coef)
    assert model.record == want.record
    assert main(["inspect", "c.safetensors"]) == 0
    line = rf"^temperature +{re.escape(facts['temperature'])}$"
    assert re.search(line, capsys.readouterr().out, re.MULTILINE)
    assert "also an input" in said(capsys, [*argv, "-o", "m.safetensors"], 2)


def test_predict_writes_a_row_for_each_row(trained, capsys):
    argv = ["predict", "m.safetensors", "test.parquet", "train.parquet", "-o", "p.parquet"]
    assert main([*argv, "--proba", "--top-k", "2", "--keep", "id,label"]) == 0
    assert capsys.readouterr() == ("", "600 rows written to p.parquet\n")
    got = pq.read_table("p.parquet")
    assert got.column_names == [
        "id", "label", "prediction", "probability",
        "probabilities", "top_predictions", "top_probabilities",
    ]  # fmt: skip
    both = pa.concat_tables([make_rows(1), make_rows(0)])
    assert got["id"].to_pylist() == both["id"].to_pylist()
    want = fastsoftmax.load("m.safetensors").predict_proba(both)
    np.testing.assert_allclose(np.stack(got["probabilities"].to_numpy()), want, rtol=1e-5)
    assert np.mean(got["prediction"].to_numpy() == both["label"].to_numpy()) > 0.7


def test_options_may_stand_anywhere(trained, capsys):
    argv = ["predict", "--quiet", "m.safetensors", "-o", "p.parquet", "test.parquet", "--proba"]
    assert main([*argv, "train.parquet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert pq.read_metadata("p.parquet").num_rows == 2 * ROWS


def test_inspect_describes_a_model(trained, capsys):
    assert main(["inspect", "m.safetensors"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^classes +3 \(int64\): 0, 1, 2$", out, re.MULTILINE)
    assert re.search(r"^features +3: a, v\[2\]$", out, re.MULTILINE)
    assert "epochs=2" in out
    assert main(["inspect", "m.safetensors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == [0, 1, 2]
    assert found["columns"] == [{"name": "a", "width": None}, {"name": "v", "width": 2}]
    assert len(found["history"]) == 2
    assert found["record"]["versions"]["fastsoftmax"] == fastsoftmax.__version__


def test_inspect_lists_the_largest_weights_of_each_class(trained, capsys):
    model = fastsoftmax.load("m.safetensors")
    model.record["deviations"] = [2.0, 1.0, 1.0]
    model.save("m.safetensors")
    assert main(["inspect", "m.safetensors", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^top weights +per standard deviation of the feature$", out, re.MULTILINE)
    weight = r"\S+ [+-]\d(?:\.\d+)?"
    assert len(re.findall(rf"^class \d +{weight}, {weight}$", out, re.MULTILINE)) == 3
    assert main(["inspect", "m.safetensors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["weights_per"] == "standard deviation"
    want = [
        {"class": label, "features": [{"name": name, "weight": w} for name, w in ranked]}
        for label, ranked in model.top_features().items()
    ]
    assert found["top_features"] == want


def test_inspect_describes_a_model_without_names(here, capsys):
    fastsoftmax.train(np.tile(np.eye(4), (50, 1)), [0, 1, 0, 1] * 50).save("m.safetensors")
    assert main(["inspect", "m.safetensors"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^features +4, without names$", out, re.MULTILINE)
    assert re.search(r"^class 0 +\[\d\] [+-]", out, re.MULTILINE)


def test_inspect_describes_data(here, capsys):
    assert main(["inspect", "train.parquet", "test.parquet", "--target", "label"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^rows +600$", out, re.MULTILINE)
    assert re.search(r"^pieces +4$", out, re.MULTILINE)
    assert re.search(r"^column a +double$", out, re.MULTILINE)
    assert main(["inspect", "train.parquet", "--target", "label", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == 1
    assert sum(line["rows"] for line in found["classes"]) == ROWS
    assert [line["class"] for line in found["classes"]] == [0, 1, 2]


def test_inspect_says_what_training_would_take(here, capsys):
    values = pa.table(
        {
            "x": pa.array([0.5, None, float("nan"), -3.0]),
            "v": pa.array([[1, 2], [3, None], None, [7, 8]], pa.list_(pa.int16())),
            "name": ["a", "b", "c", "d"],
            "y": [0, 1, 0, 1],
        }
    )
    pq.write_table(values, "d.parquet")
    assert main(["inspect", "d.parquet", "--target", "y", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ranges"] == [
        {"name": "x", "lowest": -3.0, "highest": 0.5, "nulls": 1, "not_finite": 1},
        {"name": "v", "lowest": 1.0, "highest": 8.0, "nulls": 2, "not_finite": 0},
    ]
    assert found["reading"]["layout"] == "mixed"
    assert found["reading"]["features"] == 3
    assert found["reading"]["rows_per_second"] > 0
    assert found["reading"]["packed_rows_per_second"] > 0
    assert found["run"]["fits_in_memory"]
    assert found["run"]["bytes_of_weights"] == 4 * 2 * 3
    assert main(["pack", "train.parquet", "--target", "label", "-o", "p.parquet"]) == 0
    capsys.readouterr()
    assert main(["inspect", "p.parquet", "--target", "label"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^layout +packed, 5 numbers a row$", out, re.MULTILINE)
    assert re.search(r"^range id +0 to 299$", out, re.MULTILINE)
    assert re.search(r"^first epoch +.* to read, estimated$", out, re.MULTILINE)


def test_inspect_counts_what_cannot_be_trained_on_yet(here, capsys):
    values = pa.array(["b", None, "a", "é", "b"]).dictionary_encode()
    pq.write_table(pa.table({"kind": values, "x": [0.5, 1.5, 0.5, float("nan"), 2.0]}), "d.parquet")
    assert main(["inspect", "d.parquet", "--target", "kind", "--json"]) == 0
    counts = [(c["class"], c["rows"]) for c in json.loads(capsys.readouterr().out)["classes"]]
    assert counts == [("a", 1), ("b", 2), ("é", 1), (None, 1)]
    assert main(["inspect", "d.parquet", "--target", "x", "--json"]) == 0
    assert {"class": "nan", "rows": 1} in json.loads(capsys.readouterr().out)["classes"]
    assert "no classes" in said(capsys, ["inspect", "train.parquet", "--target", "v"], 3)


@pytest.mark.parametrize(
    ("labels", "words", "want"),
    [
        (["1", "2", "03"], "1,2,03,4", ["03", "1", "2", "4"]),
        ([True, False, False], "false,True", [False, True]),
        (pa.array([3, 1, 2], pa.int8()), "3,1,2,-4", [-4, 1, 2, 3]),
        (["a,b", "c", "c"], '"a,b",c', ["a,b", "c"]),
    ],
)
def test_classes_are_words_in_the_targets_own_type(here, labels, words, want):
    table = pa.table({"x": [0.5, 1.5, 2.5], "label": labels})
    pq.write_table(pa.concat_tables([table] * 100), "train.parquet")
    assert main([*TRAIN, "--classes", words]) == 0
    assert fastsoftmax.load("m.safetensors").classes.tolist() == want


# What is said on stderr.


def test_quiet_says_nothing_and_verbose_says_more(here, capsys):
    assert main([*TRAIN, *FEATURES, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*TRAIN, *FEATURES, "--verbose"]) == 0
    err = capsys.readouterr().err
    assert "step size" in err
    assert err.count("epoch 2/2") == 1


def test_a_terminal_shows_one_line_that_is_overwritten(here, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*TRAIN, *FEATURES]) == 0
    err = capsys.readouterr().err
    assert "\n" not in err
    shown = err.split(ERASE_LINE)[1:]
    assert shown[-1] == ""
    assert all(len(line) <= 39 for line in shown)
    assert any(line.startswith("epoch 2/2") for line in shown)


def test_a_warning_is_a_sentence(here, capsys, monkeypatch):
    def warn(*_):
        warnings.simplefilter("always")
        warnings.warn("worse than guessing", UserWarning, stacklevel=1)
        return []

    monkeypatch.setitem(COMMANDS, "inspect", (COMMANDS["inspect"][0], warn))
    assert main(["inspect", "train.parquet"]) == 0
    assert capsys.readouterr().err == "fastsoftmax: warning: worse than guessing\n"


def test_control_characters_in_names_are_spelt_out(here, capsys):
    table = pa.table({"x\x1b[2J": [-1.0, 1.0] * 100, "label": ["a\n", "b\x07"] * 100})
    pq.write_table(table, "train.parquet")
    assert main(["inspect", "train.parquet", "--target", "label"]) == 0
    assert main(TRAIN) == 0
    assert main(["inspect", "m.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "x\\x1b[2J" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert said(capsys, ["inspect", "no\x1bfile"], 3).count("\x1b") == 0


HOSTILE = "\x1b[2J\n\r\x07\x9b\u202e\u2028"  # erases, rings, begins a line, turns letters round


def test_hostile_names_are_spelt_out_wherever_they_are_told(here, capfd):
    name, target, kind, other = f"x{HOSTILE}", f"y{HOSTILE}", f"k{HOSTILE}", f"z{HOSTILE}\0"
    labels = [f"{letter}{HOSTILE}\0" for letter in "abc"]
    random = np.random.default_rng(0)
    y, noise = random.integers(0, 3, (2, ROWS))
    table = pa.table(
        {name: y + random.normal(size=ROWS), other: noise % 2, kind: [labels[i] for i in noise]}
        | {target: [labels[i] for i in y]}
    )
    data, model, out = (f"{HOSTILE}{end}" for end in ("d.parquet", "m.safetensors", "o.arrow"))
    pq.write_table(table, data)
    quoted = ['"' + text + '"' for text in (name, kind)]
    train = ["train", data, "--target", target, "--categorical", quoted[1], "-o", model]
    assert main([*train, "--epochs", "2", "--verbose"]) == 0
    for command in ("evaluate", "inspect"):
        for more in ([], ["--json"]):
            assert main([command, model, *([data] * (command == "evaluate")), *more]) == 0
            assert main(["inspect", data, "--target", target, *more]) == 0
    assert main(["predict", model, data, "-o", out, "--keep", quoted[0]]) == 0
    assert main(["calibrate", model, data, "-o", "c.safetensors"]) == 0
    assert main(["pack", data, "-o", out, "--target", target, "--features", quoted[0]]) == 0
    for argv, code in (
        (["train", data, "--target", name + "?", "-o", "n"], 3),
        (["train", data, "--target", target, "-o", "n"], 3),
        (["predict", model, HOSTILE, "-o", out], 3),
        (["evaluate", HOSTILE, data], 3),
        (["train", data, "--target", target, "-o", f"{HOSTILE}/n"], 2),
        (["train", data, "--target", target, "-o", data], 2),
        ([*train, "--class-weight", f'"{labels[0]}!"=2'], 2),
        ([*train, "--epochs", HOSTILE], 2),
        ([*train, "--features", f"a{HOSTILE}b"], 2),
        ([f"--{HOSTILE}"], 2),
    ):
        assert main(argv) == code, argv
    for said in capfd.readouterr():
        assert "\\x1b[2J" in said
        assert all(line.isprintable() for line in said.split("\n"))


def test_files_may_have_names_that_are_not_utf_8(here, capfd):
    data, arrow, model = (os.fsdecode(b"\xff" + end) for end in (b"d.parquet", b"d.arrow", b"m"))
    os.link("train.parquet", data)
    with (
        pa.OSFile(os.fsencode(arrow), "wb") as file,
        pa.ipc.new_file(file, make_rows().schema) as w,
    ):
        w.write_table(make_rows())
    train = ["train", data, "--target", "label", *FEATURES, "-o", model, "--epochs", "1"]
    assert main(train) == 0
    assert fastsoftmax.load(model).record["data"][0]["name"] == data
    for argv in (["evaluate", model, arrow], ["inspect", model], ["inspect", data]):
        assert main(argv) == 0
        assert main([*argv, "--json"]) == 0
    assert main(["predict", model, data, "-o", f"{model}.parquet"]) == 2
    assert main([*train, "--classes", "\udcff,a"]) == 3
    assert main([*train, "--target", "\udcff"]) == 3
    out, err = capfd.readouterr()
    assert "is no text in UTF-8" in err
    assert "itself" not in err
    assert (out + err).isascii()


# What goes wrong.


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            [],
            "give a command: train, sweep, cross-validate, audit, learning-curve, evaluate",
        ),
        (["trian"], "there is no command trian; did you mean train?"),
        (["packs"], "there is no command packs"),
        (["--verison"], "there is no option --verison"),
        ([*TRAIN, "--epoch", "3"], "there is no option --epoch; did you mean --epochs?"),
        ([*TRAIN, "--learning_rate=3"], "no option --learning_rate; did you mean --learning-rate?"),
        (["train", "x", "--traget", "y"], "there is no option --traget; did you mean --target?"),
        (["train", "x", "-o", "m"], "the following arguments are required: --target"),
        (["train", "x.svm", "x.csv", "-o", "m"], "the following arguments are required: --target"),
        (["evaluate", "m"], "the following arguments are required: DATA"),
        ([*TRAIN, "--epochs", "many"], "--epochs: 'many' is not a whole number"),
        ([*TRAIN, "--l2", "x"], "--l2: 'x' is not a number"),
        ([*TRAIN, "--l2", "-1"], "l2 must be >= 0, got -1.0"),
        ([*TRAIN, "--epochs", "0"], "epochs must be a whole number >= 1, got 0"),
        ([*TRAIN, "--memory", "lots"], "memory must be bytes"),
        ([*TRAIN, "--schedule", "cubic"], "schedule must be one of auto, constant, inverse"),
        ([*TRAIN, "--quiet", "--verbose"], "not allowed with"),
        ([*TRAIN, "-x"], "unrecognized arguments: -x"),
        (["inspect", "m.safetensors", "x.parquet"], "inspect one at a time"),
        (["inspect", "m.safetensors", "--target", "y"], "a model has its own"),
        (["inspect", "train.parquet", "--top", "3"], "data have none"),
    ],
)
def test_a_mistake_in_a_command_is_exit_code_2(here, capsys, argv, sentence):
    assert sentence in said(capsys, argv, 2)
    assert not Path("m.safetensors").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["train", "no.parquet", "--target", "y", "-o", "m.safetensors"], "no.parquet"),
        ([*TRAIN[:2], "--target", "lable", "-o", "m.safetensors"], 'did you mean "label"?'),
        ([*TRAIN, "--features", "a,v,colour"], '"colour"'),
        (["evaluate", "no.safetensors", "test.parquet"], "no.safetensors does not exist"),
        (["evaluate", "train.parquet", "test.parquet"], "train.parquet is not a model file"),
        (["inspect", "no.parquet"], "no.parquet"),
        (["inspect", "no.safetensors"], "no.safetensors does not exist"),
        (["inspect", "train.parquet", "--target", "lable"], 'did you mean "label"?'),
    ],
)
def test_bad_data_are_exit_code_3(here, capsys, argv, sentence):
    assert sentence in said(capsys, argv, 3)
    assert sorted(os.listdir()) == ["test.parquet", "train.parquet"]


def test_a_bad_value_is_named_and_nothing_is_written(trained, capsys):
    values = np.arange(ROWS, dtype=np.float64)
    values[170] = np.nan
    pq.write_table(make_rows(a=values), "bad.parquet", row_group_size=100)
    place = 'bad.parquet, row group 1, row 70: column "a" is '
    train = ["train", "bad.parquet", "--target", "label", "-o", "n.safetensors", *FEATURES]
    predict = ["predict", "m.safetensors", "bad.parquet", "-o", "p.parquet"]
    for argv in (train, predict, ["evaluate", "m.safetensors", "bad.parquet"]):
        assert place in said(capsys, argv, 3)
    assert sorted(os.listdir()) == ["bad.parquet", "m.safetensors", "test.parquet", "train.parquet"]


def test_diverging_is_exit_code_4_and_writes_nothing(here, capsys):
    sentence = said(capsys, [*TRAIN, *FEATURES, "--learning-rate", "1e38"], 4)
    assert "learning rate" in sentence
    assert not Path("m.safetensors").exists()


def test_an_output_that_cannot_be_is_refused_before_anything_is_read(here, capsys):
    train = ["train", "train.parquet", "--target", "label", "-o"]
    Path("data").mkdir()
    Path("link").symlink_to("train.parquet")
    assert "does not exist" in said(capsys, [*train, "no/m.safetensors"], 2)
    assert "is a folder" in said(capsys, [*train, "data"], 2)
    assert "also an input" in said(capsys, [*train, "train.parquet"], 2)
    assert "also an input" in said(capsys, [*train, "link"], 2)
    folder = ["train", "data", "--target", "label", "-o", "data/m.safetensors"]
    assert "lies in the input folder" in said(capsys, folder, 2)
    predict = ["predict", "m.safetensors", "train.parquet", "-o"]
    assert "also an input" in said(capsys, [*predict, "m.safetensors"], 2)
    assert "also an input" in said(capsys, [*predict, "train.parquet"], 2)
    assert len(pq.read_table("train.parquet")) == ROWS


def test_every_output_may_be_no_input_by_any_link(trained, capsys):
    Path("data").mkdir()
    Path("data/part.parquet").hardlink_to("test.parquet")
    Path("hard").hardlink_to("m.safetensors")
    rows = ["train.parquet", "--target", "label"]
    for argv in (
        ["train", *rows, "-o", "train.parquet"],
        ["train", *rows, "--validation", "data", "-o", "test.parquet"],
        ["train", *rows, "--init", "m.safetensors", "-o", "hard"],
        ["predict", "m.safetensors", "data", "-o", "test.parquet"],
        ["predict", "hard", "train.parquet", "-o", "m.safetensors"],
        ["calibrate", "hard", "train.parquet", "-o", "m.safetensors"],
        ["calibrate", "m.safetensors", "data", "-o", "test.parquet"],
        ["pack", *rows, "-o", "train.parquet"],
    ):
        assert "also an input" in said(capsys, argv, 2)


@pytest.mark.parametrize("command", ["train", "calibrate"])
def test_a_model_that_cannot_be_saved_is_saved_in_a_second_place(
    trained, capsys, monkeypatch, command, tmp_path_factory
):
    other, replace = tmp_path_factory.mktemp("other"), os.replace

    def fail_here(source, target):
        if Path(target).parent == trained:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_here)
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    before = Path("m.safetensors").read_bytes()
    train = [*TRAIN, *FEATURES, "--quiet"]
    calibrate = ["calibrate", "m.safetensors", "test.parquet", "-o", "c.safetensors"]
    sentence = said(capsys, train if command == "train" else calibrate, 1)
    words = (
        r"fastsoftmax: (\w)\.safetensors could not be written: No space left on device\. What stood"
        r" there is untouched\. The model was saved to (\S+/\1\.safetensors) instead\.\n"
    )
    place = Path(re.fullmatch(words, sentence)[2])
    assert place.parent.parent == other
    assert place.parent.stat().st_mode & 0o077 == 0
    model = fastsoftmax.load(place)
    assert ("temperature" in model.record) == (command == "calibrate")
    assert Path("m.safetensors").read_bytes() == before
    assert sorted(os.listdir()) == ["m.safetensors", "test.parquet", "train.parquet"]


def test_a_model_that_can_be_saved_nowhere_leaves_nothing_behind(
    trained, capsys, monkeypatch, tmp_path_factory
):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "Full")))
    for place in (other, other / "missing"):
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        sentence = said(capsys, [*TRAIN, *FEATURES, "--quiet"], 1)
        assert sentence.endswith("could not be written: Full. What stood there is untouched.\n")
    assert not any(other.iterdir())
    assert sorted(os.listdir()) == ["m.safetensors", "test.parquet", "train.parquet"]


@pytest.mark.parametrize("given", [[], ["--format", "csv"], ["--format", "arrow"]])
def test_predict_writes_rows_to_stdout_and_talks_on_stderr(trained, given):
    command = [sys.executable, "-m", "fastsoftmax", "predict", "m.safetensors", "test.parquet"]
    there = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "-o", "-", *given], env=there, capture_output=True, check=True)
    kind = given[-1] if given else "csv"
    assert done.stderr.decode() == f"300 rows written to stdout as {kind}\n"
    if kind == "arrow":
        got = pa.ipc.open_stream(done.stdout).read_all()
    else:
        got = pyarrow.csv.read_csv(io.BytesIO(done.stdout))
    want = fastsoftmax.load("m.safetensors").predict("test.parquet").tolist()
    assert got["prediction"].to_pylist() == want


def test_nothing_stands_on_stdout_where_the_format_needs_a_file(trained, capsys):
    predict = ["predict", "m.safetensors", "test.parquet", "-o", "-"]
    assert "parquet needs a file" in said(capsys, [*predict, "--format", "parquet"], 2)


def test_what_predict_cannot_write_is_refused(trained, capsys):
    predict = ["predict", "m.safetensors", "test.parquet", "-o"]
    assert "must end in one of .parquet" in said(capsys, [*predict, "p.txt"], 2)
    assert "top_k must be in 1..3" in said(capsys, [*predict, "p.parquet", "--top-k", "4"], 2)
    assert "--top-k: 'x'" in said(capsys, [*predict, "p.parquet", "--top-k", "x"], 2)
    assert 'no column "age"' in said(capsys, [*predict, "p.parquet", "--keep", "age"], 3)
    assert not Path("p.parquet").exists()


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "x"), 1, "x: No space left on device."),
        (OSError("strange"), 1, "strange"),
        (MemoryError("1 TB"), 1, "memory of this machine is full (1 TB)"),
        (ZeroDivisionError("by\nzero"), 1, "ZeroDivisionError: by\\nzero. Set FASTSOFTMAX_DEBUG=1"),
    ],
)
def test_whatever_fails_is_one_sentence(here, capsys, monkeypatch, error, code, sentence):
    def fail(*_):
        raise error

    monkeypatch.setitem(COMMANDS, "inspect", (COMMANDS["inspect"][0], fail))
    assert sentence in said(capsys, ["inspect", "train.parquet"], code)


def test_debugging_shows_where_it_failed(here, capsys, monkeypatch):
    monkeypatch.setenv("FASTSOFTMAX_DEBUG", "1")
    assert main(["inspect", "no.parquet"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_failure(here):
    command = f"{shlex.quote(sys.executable)} -m fastsoftmax inspect train.parquet | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">/dev/full", 1, "could not be written to stdout: No space left on device"),
    ],
)
def test_standard_streams_may_be_closed_or_full(here, streams, code, said):
    """A model is whole although the file of the lowest number may be one that stands for stderr."""
    command = f"{shlex.quote(sys.executable)} -m fastsoftmax"
    train = f"{command} {shlex.join([*TRAIN, *FEATURES, '--learning-rate', '0.1'])} {streams}"
    for line in (
        train,
        f"{command} inspect m.safetensors {streams}",
        f"{command} --help {streams}",
    ):
        done = subprocess.run(
            ["bash", "-c", line],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
    fastsoftmax.load("m.safetensors")


@pytest.mark.parametrize("columns", ["1", "20", "500"])
def test_help_fits_in_any_terminal_and_is_without_colour(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert f"usage: fastsoftmax {command}" in " ".join(out.split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_saves_what_it_has(tmp_path, number, code):
    train = ["train", str(ROOT / "examples/data/digits-train.parquet"), "--target", "digit"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastsoftmax", *train, "-o", "m.safetensors", "--epochs", "1000000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, SIGINT is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = process.stderr.readline()
    while line.startswith("compiling, once: "):
        line = process.stderr.readline()
    has_begun = line.startswith("epoch 1/")
    process.send_signal(number if has_begun else signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert has_begun, line
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert "The model as it was then is in m.safetensors." in err
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert fastsoftmax.load(tmp_path / "m.safetensors").history

"""A dry run says what a run will take, trains nothing, and prints the file that reproduces it."""

from __future__ import annotations

import json
import time
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax import OptionError
from fastsoftmax.cli.main import main
from fastsoftmax.data import some_rows
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import forecast as home
from fastsoftmax.training.forecast import forecast
from fastsoftmax.training.inputs import Inputs


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 20)).astype(np.float32)
    y = (X[:, :4] + rng.gumbel(size=(60_000, 4))).argmax(axis=1)
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    columns = {f"x{j}": column for j, column in enumerate(X.T)}
    pq.write_table(pa.table({**columns, "y": y}), path, row_group_size=1000)
    return str(path)


class Clock:
    """Seconds of work of this process: those on the wall are others' too."""

    perf_counter = staticmethod(time.process_time)


@pytest.mark.filterwarnings("ignore::fastsoftmax.NotConverged")
@pytest.mark.parametrize("given", [{"learning_rate": 0.01, "epochs": 300}, {"max_seconds": 0.2}])
def test_the_time_is_about_what_comes(file, given, monkeypatch):
    monkeypatch.setattr(home, "time", Clock)
    monkeypatch.setattr(home, "TRIED_SECONDS", 0.5)
    given = {**given, "threads": 1, "readers": 1}
    found = forecast(Inputs(file, "y"), TrainOptions.of(**given))
    started = time.process_time()
    fastsoftmax.train(file, "y", **given)
    taken = time.process_time() - started
    # On a machine that others use, time varies by more than the forecast is wrong.
    assert taken / 2 < found.seconds < 2 * taken + 0.5


def test_full_gradients_take_about_as_many_passes_as_over_a_part(file, monkeypatch):
    monkeypatch.setattr(home, "TRIED_SECONDS", 0.0)
    monkeypatch.setattr(home, "PART_ROWS", 30_000)
    options = TrainOptions.of(threads=1)
    part = home._passes(Inputs(file, "y"), {}, options, 60_000)
    assert abs(part - len(fastsoftmax.train(file, "y", threads=1).history)) <= 3
    assert forecast(Inputs(file, "y"), options).seconds > 0


@pytest.fixture(scope="module")
def sorted_file(tmp_path_factory):
    """Rows whose first ones want a larger penalty than all do, in one piece."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(6_000, 6))
    X[2_000:, 0] += 3
    y = np.where(np.arange(6_000) < 2_000, rng.integers(0, 2, 6_000), X[:, 0] > 3)
    path = tmp_path_factory.mktemp("data") / "sorted.parquet"
    pq.write_table(pa.table({**{f"x{j}": column for j, column in enumerate(X.T)}, "y": y}), path)
    return str(path)


def test_passes_are_counted_over_rows_from_all_over_with_the_penalty_of_all(
    sorted_file, monkeypatch
):
    monkeypatch.setattr(home, "TRIED_SECONDS", 0.0)
    monkeypatch.setattr(home, "PART_ROWS", 1_500)
    monkeypatch.setattr(some_rows, "READ_ROWS", 500)
    seen, train = [], home.train
    monkeypatch.setattr(
        home, "train", lambda data, *a, **k: seen.append((data, k)) or train(data, *a, **k)
    )
    forecast(Inputs(sorted_file, "y"), TrainOptions.of(threads=1))
    (_, of_all), (part, given) = seen
    assert "l2" not in of_all
    assert part.num_rows == 1_500
    assert part.equals(pq.read_table(sorted_file).filter(np.arange(6_000) % 500 < 125))
    assert given["l2"] == fastsoftmax.train(sorted_file, "y", threads=1).record["options"]["l2"]
    assert given["standardize"] is True


def test_the_trial_of_few_rows_goes_on_to_its_end(sorted_file, monkeypatch):
    monkeypatch.setattr(home, "TRIED_SECONDS", 0.0)
    monkeypatch.setattr(home, "_passes", None)
    assert forecast(Inputs(sorted_file, "y"), TrainOptions.of(threads=1)).seconds > 0


def test_the_memory_is_that_of_rows_and_windows(file):
    all_rows = forecast(Inputs(file, "y"), TrainOptions.of(threads=1))
    rows = 60_000 * (20 * 4 + 28)
    assert rows < all_rows.memory_bytes < rows + 6e7
    assert all_rows.order == "all (60,000 rows)"
    windows = forecast(Inputs(file, "y"), TrainOptions.of(threads=1, memory="10MB", cache="disk"))
    assert windows.memory_bytes < 1.2e7
    assert windows.order.startswith("window (")
    assert (windows.rows, windows.features, windows.classes) == (60_000, 20, 4)


def test_a_dry_run_writes_nothing_and_prints_the_file_of_the_run(file, tmp_path, capsys):
    log, model, config = (tmp_path / name for name in ("log", "model", "run.toml"))
    given = ["train", file, "--target", "y", "--epochs", "2", "--learning-rate", "0.01"]
    given += ["--no-fit-intercept", "--class-weight", "0=2,1=0.5", "--features", "!x3"]
    assert main([*given, "-o", str(model), "--log-json", str(log), "--dry-run"]) == 0
    assert not model.exists()
    assert not log.exists()
    shown = capsys.readouterr().out
    assert "# rows      60,000" in shown
    config.write_text(shown)
    assert tomllib.loads(shown)["output"] == str(model)
    assert main(["train", "--config", str(config), "--quiet"]) == 0
    by_config = model.read_bytes()
    assert main([*given, "-o", str(model), "--quiet"]) == 0
    assert model.read_bytes() == by_config


def test_a_dry_run_as_json_has_the_facts_and_the_config(file, capsys):
    given = ["train", file, "--target", "y", "--epochs", "2", "--learning-rate", "0.01"]
    assert main([*given, "--dry-run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"memory_bytes", "seconds", "rows", "config"} <= set(facts)
    assert facts["rows"] == 60_000
    assert facts["config"] == {
        "data": [file], "target": "y", "epochs": 2, "learning_rate": 0.01,
    }  # fmt: skip


def test_a_mistake_is_found_by_a_dry_run_as_by_the_run(file, capsys):
    assert main(["train", file, "--target", "z", "--dry-run"]) == 3
    assert 'no column "z"' in capsys.readouterr().err
    assert main(["train", file, "--target", "y", "--epochs", "0", "--dry-run"]) == 2
    assert main(["train", file, "--target", "y"]) == 2
    assert "required: -o/--output" in capsys.readouterr().err


def test_rows_in_memory_need_no_forecast():
    X, y = np.zeros((50_000, 2)), np.arange(50_000) % 2
    with pytest.raises(OptionError, match="only runs over files are foreseen"):
        home._passes(Inputs(X, y), {}, TrainOptions(), 50_000)

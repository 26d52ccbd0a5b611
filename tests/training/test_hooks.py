"""Users' own code hears of a run, and can end it; the log has a line for each event."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import DivergedError, OptionError, TrainingInterrupted
from fastsoftmax.training.hooks import EVENTS

KEYS = [
    "event", "time", "epoch", "rows_seen", "seconds", "log_loss", "accuracy", "learning_rate",
    "validation_log_loss", "gain",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, 4)).astype(np.float32)
    return X, (X[:, 0] + 0.5 * rng.normal(size=600) > 0).astype(np.int64)


class Witness:
    """Notes every event, and asks to stop at one."""

    def __init__(self, stops: str | None = None) -> None:
        self.events, self.stops = [], stops

    def __getattr__(self, name):
        if name not in EVENTS:
            raise AttributeError(name)

        def note(progress):
            self.events.append((name, progress))
            return True if name == self.stops else "no boolean"

        return note


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_callback_hears_every_event_in_order(rows):
    witness = Witness()
    fastsoftmax.train(*rows, epochs=2, learning_rate=0.1, callbacks=[witness])
    names = [name for name, _ in witness.events]
    assert names == ["on_start", "on_span", "on_epoch", "on_span", "on_epoch", "on_end"]
    epochs = [progress for name, progress in witness.events if name == "on_epoch"]
    assert [progress.rows_seen for progress in epochs] == [600, 1200]
    assert witness.events[-1][1].ended == "epochs"
    assert all(progress.ended is None for _, progress in witness.events[:-1])


def test_full_gradients_are_passes(rows):
    witness = Witness()
    model = fastsoftmax.train(*rows, callbacks=[witness])
    names = [name for name, _ in witness.events]
    assert names[0] == "on_start"
    assert names[-1] == "on_end"
    assert names.count("on_pass") == len(model.history)
    assert witness.events[-1][1].ended == model.record["ended"]


@pytest.mark.parametrize("stops", ["on_start", "on_span", "on_epoch"])
def test_a_callback_that_returns_true_ends_the_run(rows, stops):
    witness = Witness(stops)
    model = fastsoftmax.train(*rows, epochs=9, learning_rate=0.1, callbacks=[witness])
    assert model.record["ended"] == "callback"
    assert len(model.history) == 1
    assert witness.events[-1][1].ended == "callback"


def test_a_callback_ends_full_gradients(rows):
    model = fastsoftmax.train(*rows, callbacks=[Witness("on_pass")])
    assert (model.record["ended"], len(model.history)) == ("callback", 1)


def test_callbacks_change_no_bit(rows, tmp_path):
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    fastsoftmax.train(*rows, epochs=2, learning_rate=0.1).save(plain)
    log = tmp_path / "log"
    watching = {"callbacks": [Witness()], "log_json": log}
    fastsoftmax.train(*rows, epochs=2, learning_rate=0.1, **watching).save(watched)
    assert plain.read_bytes() == watched.read_bytes()


class Silent:
    """Has no method that is called."""


@pytest.mark.parametrize(
    ("callbacks", "sentence"),
    [
        ([Silent()], "which has none of the methods on_start, on_span"),
        ([Witness], "has the class Witness: give an object of it"),
        (Witness(), "callbacks is a list of objects"),
        ([print], "hand a function over as report="),
    ],
)
def test_what_is_no_callback_is_refused_before_the_run(rows, callbacks, sentence):
    with pytest.raises(OptionError, match=sentence):
        fastsoftmax.train(*rows, callbacks=callbacks)


@pytest.mark.parametrize("report", [True, "print", [print]])
def test_what_nothing_can_be_reported_to_is_refused_before_the_run(rows, report):
    with pytest.raises(OptionError, match="report is a function that is handed a Progress, got"):
        fastsoftmax.train(*rows, report=report)


def test_what_a_callback_raises_reaches_the_caller(rows):
    class Broken:
        def on_epoch(self, progress):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        fastsoftmax.train(*rows, callbacks=[Broken()], epochs=2, learning_rate=0.1)


def test_the_log_has_the_keys_and_ends_with_why_the_run_ended(rows, tmp_path):
    path = tmp_path / "run.jsonl"
    model = fastsoftmax.train(*rows, holdout=0.2, log_json=path, epochs=3)
    found = lines(path)
    assert all(list(line)[:10] == KEYS for line in found)
    assert [line["event"] for line in found if line["event"] == "span"] == []
    assert found[0]["event"] == "start"
    assert found[0]["log_loss"] is None
    assert found[-1]["event"] == "end"
    assert found[-1]["ended"] == model.record["ended"] == "epochs"
    epochs = [line for line in found if line["event"] == "epoch"]
    assert [line["log_loss"] for line in epochs] == [each["log_loss"] for each in model.history]
    want = [each["validation_log_loss"] for each in model.history]
    assert [line["validation_log_loss"] for line in epochs] == want


def test_the_log_of_a_run_that_fails_says_so(rows, tmp_path):
    path = tmp_path / "run.jsonl"
    with pytest.raises(DivergedError):
        fastsoftmax.train(rows[0] * 1e6, rows[1], learning_rate=1e6, epochs=2, log_json=path)
    assert lines(path)[-1]["ended"] == "diverged"

    def interrupt(progress):
        if progress.finished:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        fastsoftmax.train(*rows, learning_rate=0.1, report=interrupt, log_json=path)
    assert lines(path)[-1]["ended"] == "interrupt"


def test_the_log_of_a_resumed_run_goes_on(rows, tmp_path):
    path = tmp_path / "run.jsonl"
    given = {
        "epochs": 3, "learning_rate": 0.1, "log_json": path, "checkpoint": tmp_path / "kept",
    }  # fmt: skip
    fastsoftmax.train(*rows, **given, callbacks=[Witness("on_epoch")])
    fastsoftmax.train(*rows, **given, resume=True)
    found = lines(path)
    assert [line["ended"] for line in found if line["event"] == "end"] == ["callback", "epochs"]
    assert [line["epoch"] for line in found if line["event"] == "epoch"] == [1, 2, 3]


def test_a_log_that_cannot_be_written_is_refused_before_the_run(rows, tmp_path):
    with pytest.raises(OptionError, match=r"log_json .*nowhere.* cannot be written: No such file"):
        fastsoftmax.train(*rows, log_json=tmp_path / "nowhere" / "log")
    with pytest.raises(OptionError, match="log_json must be the path of a file, got 3"):
        fastsoftmax.train(*rows, log_json=3)


def test_a_sweep_logs_which_setting_it_speaks_of(rows, tmp_path):
    path = tmp_path / "run.jsonl"
    fastsoftmax.sweep(*rows, l2=[0, 1e-3], epochs=1, learning_rate=0.1, log_json=path)
    found = lines(path)
    assert {line["setting"] for line in found if line["event"] == "epoch"} == {0, 1}

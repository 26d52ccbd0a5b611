"""Lines about a run say where it stands, and when it will end."""

from __future__ import annotations

from fastsoftmax.cli.console import Console
from fastsoftmax.cli.progress import Teller, epoch_line, live_line, training_summary
from fastsoftmax.training.progress import Progress


def make_progress(**changes) -> Progress:
    """Return a run that is half way through its third of four epochs."""
    facts = {
        "epoch": 3,
        "epochs": 4,
        "rows": 500,
        "rows_per_epoch": 1000,
        "rows_seen": 2500,
        "seconds": 10.0,
        "log_loss": 0.25,
        "accuracy": 0.875,
        "learning_rate": 0.1,
    }
    return Progress(**{**facts, **changes})


def test_the_live_line_tells_when_the_run_ends():
    want = "epoch 3/4  50%, 250 rows/s, log-loss 0.2500, accuracy 87.50 %, ETA 6.00 s"
    assert live_line(make_progress()) == want


def test_a_reader_of_unknown_length_has_no_end_in_sight():
    assert "ETA" not in live_line(make_progress(rows_per_epoch=None))
    assert "ETA" not in live_line(make_progress(rows_seen=0))


def test_an_epochs_line_holds_its_validation():
    line = epoch_line(make_progress(validation_log_loss=0.5, validation_accuracy=0.75))
    assert line.endswith("; validation log-loss 0.5000, accuracy 75.00 %")
    assert "validation" not in epoch_line(make_progress())


def test_the_summary_holds_the_validation_where_there_is_one():
    facts = dict(training_summary(make_progress(), 12.0))
    assert facts["rows"] == "2,500 in 3 of 4 epochs"
    assert facts["time"] == "12.0 s, 10.0 s of it training"
    assert "validation" not in facts
    checked = make_progress(validation_log_loss=0.5, validation_accuracy=0.75)
    assert "validation" in dict(training_summary(checked, 12.0))


class Recorder(Console):
    """A console that keeps what it is told."""

    def __init__(self, *, is_live: bool) -> None:
        super().__init__()
        self.is_live, self.said, self.shown = is_live, [], []

    def say(self, line: str) -> None:
        self.said.append(line)

    def show(self, line: str) -> None:
        self.shown.append(line)


def test_a_terminal_is_shown_every_line_and_a_file_is_told_epochs():
    terminal, file = Recorder(is_live=True), Recorder(is_live=False)
    done = make_progress(finished=True)
    for console in (terminal, file):
        teller = Teller(console, silent=False)
        teller(make_progress())
        teller(done)
        assert teller.last is done
    assert terminal.shown == [live_line(make_progress()), epoch_line(done)]
    assert file.said == [epoch_line(done)]
    assert terminal.said == file.shown == []


def test_a_run_is_asked_to_stop_after_a_signal_even_in_silence():
    console = Recorder(is_live=True)
    teller = Teller(console, silent=True)
    assert teller(make_progress()) is False
    console.signal = 15
    assert teller(make_progress()) is True
    assert console.shown == []


def test_a_pass_and_a_run_without_a_plan_are_called_what_they_are():
    facts = dict(training_summary(make_progress(epochs=None, solver="lbfgs"), 1.0))
    assert facts["rows"] == "2,500 in 3 epochs"
    assert facts["training"].endswith("(at the last weights)")
    assert live_line(make_progress(epochs=None, solver="lbfgs")).startswith("pass 3 ")


def test_the_summary_says_what_became_of_nulls():
    facts = dict(training_summary(make_progress(treated={"nulls filled": 1234}), 1.0))
    assert facts["treated"] == "1,234 nulls filled"

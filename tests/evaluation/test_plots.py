"""Plots show the facts that they are given, on the Axes that they are given."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax.errors import DataError, MissingExtraError, OptionError
from fastsoftmax.labels import given_classes
from fastsoftmax.training.sweep import Sweep
from tests.models import make_model

pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
plots = fastsoftmax.plots


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    """Draw into memory, and leave no figure open."""
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def report_of(K: int = 3, seed: int = 0, names=None) -> fastsoftmax.Report:
    """Return the Report of a model on random rows."""
    model = make_model(K, 4, classes=names and given_classes(names), named=False, seed=seed)
    random = np.random.default_rng(seed)
    labels = model.classes[random.integers(0, K, 400)]
    return fastsoftmax.evaluate(model, random.normal(size=(400, 4)), labels)


def sweep_of(**options) -> Sweep:
    """Return a Sweep over these options, in their order."""
    some = [dict(zip(options, row, strict=True)) for row in zip(*options.values(), strict=True)]
    rest = {"log_loss": 0.5, "validation_log_loss": None, "rows": 9, "status": "trained"}
    return Sweep([{**row, **rest, "log_loss": 0.5 + 0.1 * i} for i, row in enumerate(some)], [])


def calls(ax=None) -> dict:
    """Return each plot of some facts, to be drawn on ax."""
    model, report = make_model(), report_of()
    return {
        "history": lambda: plots.history(model, ax=ax),
        "reliability": lambda: plots.reliability(report, ax=ax),
        "confusion": lambda: plots.confusion(report, ax=ax),
        "confusions": lambda: plots.confusion(report, most=2, ax=ax),
        "weights": lambda: plots.weights(model, ax=ax),
        "images": lambda: plots.weights(model, shape=(2, 2), ax=ax),
        "top_features": lambda: plots.top_features(model, ax=ax),
        "sweep": lambda: plots.sweep(sweep_of(l2=[0.0, 0.1]), ax=ax),
        "calibration": lambda: plots.calibration(report, report_of(seed=1), ax=ax),
    }


@pytest.mark.parametrize("name", calls())
def test_a_plot_stands_on_the_axes_given_or_on_its_own(name, tmp_path):
    _, ax = pyplot.subplots()
    assert calls(ax)[name]() is ax
    own = calls()[name]()
    assert own is not ax
    own.figure.savefig(tmp_path / "plot.png")
    assert own.get_title()


def line(ax, label: str) -> np.ndarray:
    """Return the points (n, 2) of the line of that label."""
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found.get_xydata()


def test_history_shows_both_losses_over_rows_and_over_seconds():
    model = make_model()
    first = model.history[0]
    second = {**first, "epoch": 2, "log_loss": 0.25, "validation_log_loss": 0.4}
    model.history = [first, second]
    ax = plots.history(model)
    np.testing.assert_array_equal(line(ax, "progressive"), [[9, 0.5], [18, 0.25]])
    np.testing.assert_array_equal(line(ax, "validation"), [[9, np.nan], [18, 0.4]])
    ax = plots.history(model, seconds=[0.5, 1.5])
    np.testing.assert_array_equal(line(ax, "progressive"), [[0.5, 0.5], [1.5, 0.25]])
    with pytest.raises(OptionError, match="one for each of 2 epochs, got 1"):
        plots.history(model, seconds=[1.0])


def test_a_model_without_epochs_has_no_history_to_draw():
    model = make_model()
    model.history = []
    with pytest.raises(DataError, match="no history"):
        plots.history(model)


def test_reliability_shows_the_bins_of_the_report():
    report = report_of()
    ax = plots.reliability(report)
    (points,) = ax.collections
    want = [[b.confidence, b.accuracy] for b in report.reliability]
    np.testing.assert_allclose(points.get_offsets(), want)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [b.weight / 400 for b in report.reliability])


def test_few_classes_are_a_table_and_many_the_largest_confusions():
    report = report_of(5, names=["a", "b", "c", "d", "$e$"])
    texts = [text.get_text() for text in plots.confusion(report).texts]
    assert texts == [f"{n:,.4g}" for n in report.confusion.ravel() if n]
    ax = plots.confusion(report, most=4)
    wrong = report.confusion - np.diag(np.diag(report.confusion))
    want = np.sort(wrong.ravel())[::-1][:4]
    np.testing.assert_array_equal([bar.get_width() for bar in ax.patches], want)
    i, j = divmod(int(wrong.argmax()), 5)
    names = [r"\$e\$", "a", "b", "c", "d"]
    assert ax.get_yticklabels()[0].get_text() == f"{names[i]} → {names[j]}"
    with pytest.raises(OptionError, match="most must be >= 1"):
        plots.confusion(report, most=0)


def test_a_report_without_a_table_says_so():
    with pytest.raises(DataError, match="more than 1,000 classes"):
        plots.confusion(types.SimpleNamespace(confusion=None))


def test_weights_are_drawn_as_they_are_or_as_images():
    model = make_model()
    np.testing.assert_allclose(plots.weights(model).images[0].get_array(), model.coef)
    ax = plots.weights(model, shape=(2, 2))
    whole = np.ma.filled(ax.images[0].get_array(), np.nan)
    drawn = whole[np.isfinite(whole)]
    np.testing.assert_allclose(np.sort(drawn), np.sort(model.coef.ravel()))
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2"]
    with pytest.raises(OptionError, match=r"as the model has features, 4, got 3 x 2"):
        plots.weights(model, shape=(3, 2))


def test_top_features_are_those_of_the_model():
    model = make_model()
    ax = plots.top_features(model, 2)
    want = [weight for ranked in model.top_features(2).values() for _, weight in ranked]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], want)


def test_a_sweep_is_a_line_a_surface_or_a_ranking():
    ax = plots.sweep(sweep_of(l2=[1e-3, 0.0, 1e-1], epochs=[2, 2, 2]))
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), [0.0, 1e-3, 1e-1])
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0.6, 0.5, 0.7])
    surface = plots.sweep(sweep_of(l2=[0.1, 0.2, 0.1], learning_rate=[1.0, 1.0, 2.0]))
    want = np.array([[0.5, 0.6], [0.7, np.nan]])
    np.testing.assert_allclose(np.ma.filled(surface.images[0].get_array(), np.nan), want)
    ranked = plots.sweep(sweep_of(schedule=["linear", "cosine"]))
    assert [t.get_text() for t in ranked.get_yticklabels()] == [
        "schedule=linear",
        "schedule=cosine",
    ]


def test_plots_without_matplotlib_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fastsoftmax.evaluation.plots")
    monkeypatch.delitem(sys.modules, "fastsoftmax.plots")
    monkeypatch.delattr(fastsoftmax, "plots")
    with pytest.raises(MissingExtraError, match=r"fastsoftmax\[plot\]"):
        _ = fastsoftmax.plots


def test_the_package_lists_its_plots():
    assert "plots" in dir(fastsoftmax)

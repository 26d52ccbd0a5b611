"""The trackers of experiments and Optuna hear of a run as their own readers tell it again."""

from __future__ import annotations

import ast

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import callbacks
from tests import floors

GIVEN = {"epochs": 3, "learning_rate": 0.1, "holdout": 0.2}
pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not ours


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def test_each_is_shorter_than_40_lines_and_imports_its_package_late():
    tree = ast.parse(floors.modules()["callbacks"].read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes} == {"MLflow", "TensorBoard", "WandB", "Optuna"}
    assert all(node.end_lineno - node.lineno < 40 for node in classes)


def test_a_package_that_is_missing_is_named(rows, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(fastsoftmax.MissingExtraError, match="needs mlflow: pip install mlflow"):
        fastsoftmax.train(*rows, callbacks=[callbacks.MLflow()])


def test_mlflow_has_the_losses_and_why_the_run_ended(rows, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    model = fastsoftmax.train(*rows, **GIVEN, callbacks=[callbacks.MLflow(run_name="ours")])
    assert mlflow.active_run() is None
    run = mlflow.last_active_run()
    assert (run.info.run_name, run.data.tags["ended"]) == ("ours", "epochs")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "log_loss")
    want = [epoch["log_loss"] for epoch in model.history]
    assert [point.value for point in sorted(history, key=lambda p: p.step)] == want


def test_tensorboard_has_the_losses(rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = fastsoftmax.train(*rows, **GIVEN, callbacks=[callbacks.TensorBoard(str(tmp_path))])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = events.Tensors("validation_log_loss")
    assert [event.step for event in found] == [model.history[0]["rows"] * e for e in (1, 2, 3)]
    want = [epoch["validation_log_loss"] for epoch in model.history]
    np.testing.assert_allclose([event.tensor_proto.float_val[0] for event in found], want, 1e-6)


def test_weights_and_biases_hears_each_epoch_offline(rows, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=str(tmp_path), project="ours")
    try:
        model = fastsoftmax.train(*rows, **GIVEN, callbacks=[callbacks.WandB()])
        assert run.summary["ended"] == "epochs"
        assert run.summary["log_loss"] == pytest.approx(model.history[-1]["log_loss"])
    finally:
        run.finish()


def test_optuna_hears_each_epoch_and_prunes(rows):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class AfterTwo(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and len(trial.intermediate_values) == 2

    def objective(trial):
        rate = trial.suggest_float("rate", 0.01, 0.1)
        given = {**GIVEN, "learning_rate": rate}
        model = fastsoftmax.train(*rows, **given, callbacks=[callbacks.Optuna(trial)])
        return model.history[-1]["validation_log_loss"]

    study = optuna.create_study(pruner=AfterTwo())
    study.optimize(objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 2]

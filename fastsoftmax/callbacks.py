"""The only place that tells trackers of experiments how a run goes, and lets Optuna prune it.

Each is an object for `callbacks=[...]` of `fastsoftmax.train`; its package is imported when the
run begins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastsoftmax.errors import MissingExtraError

if TYPE_CHECKING:
    from fastsoftmax.training.progress import Progress

TRACKED = ("log_loss", "accuracy", "validation_log_loss", "validation_accuracy", "learning_rate")


def numbers_of(progress: Progress) -> dict[str, float]:
    """Return what trackers are told of an epoch or a pass: the numbers that there are."""
    named = {name: getattr(progress, name) for name in (*TRACKED, "gain", "seconds")}
    return {name: float(value) for name, value in named.items() if value is not None}


def _package(name: str, install: str) -> Any:
    try:
        return import_module(name)
    except ImportError as missing:
        raise MissingExtraError(f"this needs {install}: pip install {install}") from missing


class MLflow:
    """Logs each epoch to the active run of MLflow, or to one of its own, which ends with this."""

    def __init__(self, **start_run: Any) -> None:
        """start_run: what mlflow.start_run takes, where no run is active."""
        self._given, self._is_ours = start_run, False

    def on_start(self, progress: Progress) -> None:
        """Begin a run, if none is active."""
        self._mlflow = _package("mlflow", "mlflow")
        self._is_ours = self._mlflow.active_run() is None
        if self._is_ours:
            self._mlflow.start_run(**self._given)

    def on_epoch(self, progress: Progress) -> None:
        """Log the numbers of an epoch."""
        self._mlflow.log_metrics(numbers_of(progress), step=progress.rows_seen)

    on_pass = on_epoch

    def on_end(self, progress: Progress) -> None:
        """Say why the training ended."""
        self._mlflow.set_tag("ended", progress.ended)
        if self._is_ours:
            self._mlflow.end_run()


class TensorBoard:
    """Writes each epoch to a folder that TensorBoard shows."""

    def __init__(self, folder: str) -> None:
        """folder: where to; it is made where it is missing."""
        self._folder = folder

    def on_start(self, progress: Progress) -> None:
        """Open a file in the folder."""
        self._writer = _package("tensorboard.summary", "tensorboard").Writer(self._folder)

    def on_epoch(self, progress: Progress) -> None:
        """Write the numbers of an epoch over the rows seen."""
        for name, value in numbers_of(progress).items():
            self._writer.add_scalar(name, value, progress.rows_seen)

    on_pass = on_epoch

    def on_end(self, progress: Progress) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """Logs each epoch to the run of Weights & Biases at hand, or to one of its own."""

    def __init__(self, **init: Any) -> None:
        """init: what wandb.init takes, where there is no run."""
        self._given, self._is_ours = init, False

    def on_start(self, progress: Progress) -> None:
        """Begin a run, if there is none."""
        wandb = _package("wandb", "wandb")
        self._is_ours = wandb.run is None
        self._run = wandb.init(**self._given) if self._is_ours else wandb.run

    def on_epoch(self, progress: Progress) -> None:
        """Log the numbers of an epoch; the step is the number of rows seen."""
        self._run.log(numbers_of(progress), step=progress.rows_seen, commit=True)

    on_pass = on_epoch

    def on_end(self, progress: Progress) -> None:
        """Say why the training ended."""
        self._run.summary["ended"] = progress.ended
        if self._is_ours:
            self._run.finish()


class Optuna:
    """Reports the loss of each epoch to a trial of Optuna, and ends a run that it prunes.

    The loss is the validation log-loss, or without validation rows the progressive one. A run that
    is pruned raises optuna.TrialPruned, as Optuna expects it.
    """

    def __init__(self, trial: Any) -> None:
        """trial: what Optuna hands to the objective."""
        self._trial = trial

    def on_epoch(self, progress: Progress) -> None:
        """Report the loss, and ask whether the trial is worth going on."""
        optuna = _package("optuna", "optuna")
        validated = progress.validation_log_loss
        loss = progress.log_loss if validated is None else validated
        self._trial.report(loss, step=progress.epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned(f"pruned after epoch {progress.epoch}, at {loss:.4g}")

    on_pass = on_epoch

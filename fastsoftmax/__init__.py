"""Softmax regression on more rows than fit in memory, straight from Parquet and Arrow.

The public names; the heavy ones are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastsoftmax.errors import (
    DataError,
    DivergedError,
    FastsoftmaxError,
    MissingExtraError,
    ModelFileError,
    NotConverged,
    OptionError,
    SaveError,
    TrainingInterrupted,
    UnknownOptionError,
)
from fastsoftmax.version import __version__ as __version__

if TYPE_CHECKING:
    from fastsoftmax import callbacks, plots
    from fastsoftmax.data.convert import convert
    from fastsoftmax.data.pack import Packed, pack
    from fastsoftmax.evaluation.calibrate import calibrate
    from fastsoftmax.evaluation.evaluate import evaluate
    from fastsoftmax.evaluation.page import write_report
    from fastsoftmax.evaluation.report import Report
    from fastsoftmax.model.export import export
    from fastsoftmax.model.model import Model, load
    from fastsoftmax.sklearn import SoftmaxClassifier
    from fastsoftmax.training.audit import audit
    from fastsoftmax.training.cross_validate import CrossValidation, cross_validate
    from fastsoftmax.training.learning_curve import LearningCurve, learning_curve
    from fastsoftmax.training.sweep import Sweep, sweep
    from fastsoftmax.training.train import train

__all__ = [
    "CrossValidation",
    "DataError",
    "DivergedError",
    "FastsoftmaxError",
    "LearningCurve",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "NotConverged",
    "OptionError",
    "Packed",
    "Report",
    "SaveError",
    "SoftmaxClassifier",
    "Sweep",
    "TrainingInterrupted",
    "UnknownOptionError",
    "audit",
    "calibrate",
    "callbacks",
    "convert",
    "cross_validate",
    "evaluate",
    "export",
    "learning_curve",
    "load",
    "pack",
    "plots",
    "sweep",
    "train",
    "write_report",
]

_MODULES = ("callbacks", "plots")
_HOMES = {
    "CrossValidation": "training.cross_validate",
    "LearningCurve": "training.learning_curve",
    "audit": "training.audit",
    "cross_validate": "training.cross_validate",
    "learning_curve": "training.learning_curve",
    "Model": "model.model",
    "Packed": "data.pack",
    "Report": "evaluation.report",
    "SoftmaxClassifier": "sklearn",
    "Sweep": "training.sweep",
    "calibrate": "evaluation.calibrate",
    "convert": "data.convert",
    "evaluate": "evaluation.evaluate",
    "export": "model.export",
    "load": "model.model",
    "pack": "data.pack",
    "sweep": "training.sweep",
    "train": "training.train",
    "write_report": "evaluation.page",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home the first time it is asked for."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *_HOMES, *_MODULES})

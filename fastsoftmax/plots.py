"""The only place for the public names of plots, which are drawn by matplotlib (the extra plot)."""

from fastsoftmax.evaluation.plots import (
    calibration,
    confusion,
    history,
    reliability,
    sweep,
    top_features,
    weights,
)

__all__ = [
    "calibration",
    "confusion",
    "history",
    "reliability",
    "sweep",
    "top_features",
    "weights",
]

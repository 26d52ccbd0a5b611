"""The only place that says why a run ended, and warns where it had not converged."""

from __future__ import annotations

import warnings

from fastsoftmax.errors import NotConverged
from fastsoftmax.training.learner import Learner


def why_ended(learner: Learner, *, is_done: bool, told_to_stop: bool) -> str:
    """Return why a learner takes no more steps, as its model's record says it.

    tolerance or patience: little was left to gain. epochs: as many as were asked for are
    done. max_iter: as many as there are where nobody asked. callback: one asked to stop;
    max_seconds: time was up.
    """
    if not is_done:
        return "callback" if told_to_stop else "max_seconds"
    asked = "epochs" if learner.planned_epochs is not None else "max_iter"
    return learner.state.ended or asked


def warn_of_limits(learner: Learner, ended: str) -> None:
    """Warn where a limit ended a fit that goes on until little is left to gain."""
    asked = ended == "epochs" and learner.options.stopping.solver != "lbfgs"
    if asked or ended not in ("epochs", "max_iter", "max_seconds"):
        return
    limit, further = f"by {ended}", f"Raise {ended}="
    if ended == "max_iter":
        limit = f"after {learner.last_epoch} epochs"
        further = "Go on by solver=lbfgs and more epochs=, or raise l2="
    gain = learner.state.history[-1].get("gain") if learner.state.history else None
    left = "" if gain is None else f": some {gain:.2g} of the loss may be left to gain"
    warnings.warn(
        f"the run ended {limit} before it had converged{left}. {further}, or tolerance=.",
        NotConverged,
        stacklevel=4,
    )

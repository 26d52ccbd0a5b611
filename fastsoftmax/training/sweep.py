"""The only place that trains many settings at once, over one read of the rows, and ranks them.

Karnin, Koren and Somekh, Almost Optimal Exploration in Multi-Armed Bandits, ICML 2013, is the
source of halving: the worse half of the field is given up, and what is left gets twice the rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from fastsoftmax.errors import OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.model.model import Model
from fastsoftmax.options import OPTIONS, SWEPT, TrainOptions
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.train import model_of, opened_trainer, train_to_end
from fastsoftmax.training.trainer import Trainer

HOLDOUT = 0.1  # where settings choose their own steps, and nothing else tells them apart


@dataclass(frozen=True)
class Sweep:
    """What a sweep found: a table ranked from the best setting, and models.

    table: for each setting its values, the progressive log_loss (nats) of its last epoch, or since
    the field was last halved, the validation_log_loss or None, the rows it stepped over, and its
    status. models: those kept, in the order of the table; the first is the best.
    """

    table: list[dict[str, Any]]
    models: list[Model]

    @property
    def best(self) -> Model:
        """The model of the setting that ranks first."""
        return self.models[0]


def sweep(
    data: Any,
    target: Any = None,
    *,
    features: Sequence[str] | None = None,
    weight: Any = None,
    classes: Sequence[Any] | None = None,
    categorical: Sequence[str] | None = None,
    validation: Any = None,
    init: Model | None = None,
    report: Callable[[Progress], bool | None] | None = None,
    halve: bool = True,
    keep_all: bool = False,
    **options: Any,
) -> Sweep:
    """Train a model of each combination of options that are lists, over one read of the rows.

    Each is the model that `train` returns for these options, bit for bit. Lists may be given for
    learning_rate, schedule, halflife, batch_size, l2, l1, class_weight, fit_intercept, average and
    adaptive. Settings are ranked by the validation log-loss, or without validation rows by the
    progressive one. Where a setting has no learning_rate of its own and there are no validation
    rows, holdout is 0.1.

    halve: give up the worse half after an eighth of an epoch (4,096 rows at least), and again each
        time that twice as many rows have passed. keep_all: keep the models of all settings that
        were not given up.
    The other arguments are those of `train`, and so are the errors.
    """
    settings = grid(options)
    needs_rows = any(not each.by_hand for each in settings)
    if validation is None and settings[0].shuffling.holdout is None and needs_rows:
        settings = [each.changed(holdout=HOLDOUT) for each in settings]
    inputs = Inputs(data, target, features, weight, classes, categorical, validation, init)
    with opened_trainer(inputs, settings, report, halves=halve) as trainer:
        train_to_end(trainer, inputs)
        ranked = sorted(trainer.learners, key=lambda each: _rank(trainer, each))
        flat = [each.flat() for each in settings]
        names = [name for name in SWEPT if len({str(options[name]) for options in flat}) > 1]
        table = [_line(trainer, learner, names) for learner in ranked]
        survivors = trainer.survivors.list()
        alive = [learner for learner in ranked if learner in survivors]
        kept = alive if keep_all else alive[:1]
        return Sweep(table, [model_of(trainer, learner, inputs) for learner in kept])


def grid(options: dict[str, Any]) -> list[TrainOptions]:
    """Return the options of each combination of values, where some are lists."""
    choices: list[list[Any]] = []
    for name, value in options.items():
        several = isinstance(value, list | tuple) and not _is_one(name)
        if several and name not in SWEPT:
            raise OptionError(
                f"{name} cannot be a list, for it concerns all settings at once; these can:"
                f" {', '.join(SWEPT)}"
            )
        if several and not value:
            raise OptionError(f"{name} is an empty list: give at least one value")
        choices.append(list(value) if several else [value])
    return [
        TrainOptions.of(**dict(zip(options, values, strict=True)))
        for values in itertools.product(*choices)
    ]


def _is_one(name: str) -> bool:
    """Return whether an option's one value is a list."""
    return name in OPTIONS and bool(OPTIONS[name].metadata.get("names"))


def _losses(learner: Learner) -> tuple[float, float | None]:
    """Return the progressive and the validation log-loss: of the best epoch, of the last one."""
    state = learner.state
    if not state.history:
        return state.recent_loss.means()[0], None
    checked = [e["validation_log_loss"] for e in state.history if "validation_log_loss" in e]
    return state.history[-1]["log_loss"], min(checked, default=None)


def _rank(trainer: Trainer, learner: Learner) -> tuple[Any, ...]:
    log_loss, validated = _losses(learner)
    loss = log_loss if validated is None else validated
    given_up = learner not in trainer.survivors.list()
    return given_up, -learner.state.seen * given_up, loss if math.isfinite(loss) else math.inf


def _line(trainer: Trainer, learner: Learner, names: list[str]) -> dict[str, Any]:
    log_loss, validated = _losses(learner)
    dropped = dict(trainer.state.dropped)
    return {
        **{name: learner.options.flat()[name] for name in names},
        "log_loss": log_loss,
        "validation_log_loss": validated,
        "rows": learner.state.seen,
        "status": dropped.get(trainer.learners.index(learner), "trained to the end"),
    }

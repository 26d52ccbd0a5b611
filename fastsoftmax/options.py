"""The only place for the options of a training run: their names, defaults and checks."""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
import shlex
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fastsoftmax.errors import OptionError, UnknownOptionError

SCHEDULES = ("constant", "inverse", "linear", "cosine")
UNITS_OF_TIME = {"s": 1, "m": 60, "h": 3600}
# What settings that are trained together may differ in: nothing that concerns which rows come when.
SWEPT = (
    "learning_rate", "schedule", "halflife", "batch_size", "l2", "l1", "class_weight",
    "fit_intercept", "average", "adaptive",
)  # fmt: skip
MOST_READERS = 8  # unless asked for
UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that `text` means: 1000000, "512MB" (10^6) or "1GiB" (2^30)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(text).lower())
    if not match or match[2] not in UNITS:
        raise OptionError(f'memory must be bytes, as 1000000, "512MB" or "1GiB", got {text!r}')
    return int(float(match[1]) * UNITS[match[2]])


def available_threads() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1


def option(default: Any, text: str, *, shapes_model: bool = True) -> Any:
    """Declare an option: its default, its help text, and whether the model's bits depend on it."""
    return field(default=default, metadata={"help": text, "shapes_model": shapes_model})


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train: frozen, checked once, printable as the line that reproduces the run."""

    epochs: int | str = option("auto", "passes over the rows; auto: until another gains little")
    batch_size: int = option(1, "rows per step; 1 is exact per-sample SGD")
    learning_rate: float | str = option("auto", "first step size; auto: compared on the first rows")
    schedule: str = option("auto", "auto, constant, inverse, linear or cosine")
    halflife: float | None = option(
        None, "rows after which the inverse schedule has halved the step; default one epoch"
    )
    adaptive: bool = option(False, "AdaGrad: a step size of its own for each weight")
    average: bool | str = option("auto", "keep the mean of the weights over the last steps")
    l2: float | str = option("auto", "penalty l2/2 ||W||^2; auto: chosen on held-out rows")
    l1: float = option(0.0, "penalty l1 ||W||_1")
    standardize: bool | str = option(
        "auto", "penalise weights of features divided by their deviation; auto: where l2 is chosen"
    )
    conditioning: str = option(
        "auto", "auto: train on features brought to one scale; off: as they are"
    )
    fit_intercept: bool = option(True, "learn a bias for each class")
    seed: int = option(0, "seed of the row order and of held-out rows")
    shuffle: str = option("auto", "auto, full, window or off")
    shuffle_window: int | None = option(None, "rows shuffled together; default from memory")
    dtype: str = option("float32", "float32 or float64 weights")
    holdout: float | None = option(None, "fraction of the rows kept for validation")
    nulls: str = option("error", "what becomes of nulls: error, zero, mean or drop")
    null_indicators: bool = option(False, "one more feature for each column that has nulls")
    max_categories: int = option(1000, "categories that a column may have")
    class_weight: Any = option(  # noqa: RUF009 - nobody changes a dictionary
        None, "factors of the weights of classes, a=2,b=0.5, or balanced"
    )
    solver: str = option("sgd", "sgd, or lbfgs: full gradients, to the optimum")
    tolerance: float | None = option(
        None, "end when the estimated gain is below this share of the loss"
    )
    patience: int | None = option(
        None, "end after so many epochs without a better validation loss; keep the best weights"
    )
    min_delta: float = option(0.0, "validation loss must be lower by this to be better")
    seen: str = option(
        "skip", "with init: skip row groups that its model was trained on, or train on them again"
    )
    max_seconds: float | None = option(None, "stop after this time", shapes_model=False)
    threads: int | None = option(
        None, "threads; default the cores this process may use", shapes_model=False
    )
    memory: str | int = option(
        "1GB", "bytes the run may hold beyond the interpreter", shapes_model=False
    )
    cache: str = option(
        "auto", "where decoded rows are kept: auto, memory, disk or off", shapes_model=False
    )
    cache_folder: str | None = option(
        None, "folder where the cache file stays for further runs", shapes_model=False
    )
    readers: int | None = option(
        None, "threads that decode; default as many as threads, at most 8", shapes_model=False
    )
    checkpoint: str | None = option(
        None, "folder where the state of the run is kept", shapes_model=False
    )
    checkpoint_every: str | int = option(
        "30s", "time between checkpoints, as 30s or 5m, or rows", shapes_model=False
    )
    resume: bool = option(False, "go on from the last checkpoint", shapes_model=False)
    verbose: bool = option(False, "log one line an epoch to stderr", shapes_model=False)

    def __post_init__(self) -> None:
        """Check every value; raise OptionError with the rule, then the value."""
        for name in ("learning_rate", "schedule"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, "auto")
        _check_ranges(self)
        _check_choices(self)
        _check_together(self)

    @classmethod
    def of(cls, **given: Any) -> TrainOptions:
        """Build options from keywords; a name that does not exist raises UnknownOptionError."""
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise UnknownOptionError(f"there is no option {name!r}{hint}")
        return cls(**{name: _plain(value) for name, value in given.items()})

    @property
    def memory_bytes(self) -> int:
        """The memory budget in bytes."""
        return parse_bytes(self.memory)

    @property
    def thread_count(self) -> int:
        """The threads to use."""
        return available_threads() if self.threads is None else self.threads

    @property
    def reader_count(self) -> int:
        """The threads that decode: as many as train, for the first epoch waits for them."""
        return min(self.thread_count, MOST_READERS) if self.readers is None else self.readers

    @property
    def by_hand(self) -> bool:
        """Whether a step size is given: then all else that is auto takes its simplest value."""
        return self.solver == "sgd" and not isinstance(self.learning_rate, str)

    def settled(self, *, one_pass: bool) -> TrainOptions:
        """Return the options with those values of `auto` settled that depend on no data."""
        chosen: dict[str, Any] = {}

        def settle(name: str, value: Any) -> None:
            if getattr(self, name) == "auto":
                chosen.setdefault(name, value)

        if one_pass:
            settle("epochs", 1)
        if self.by_hand:
            settle("epochs", 10)
            settle("schedule", "constant" if one_pass else "linear")
            settle("l2", 0.0)
            settle("conditioning", "off")
        # The mean of weights that are 0 now and then is never 0.
        settle("average", not self.by_hand and self.solver == "sgd" and not self.l1)
        if self.adaptive:
            settle("schedule", "constant")  # its steps fall by themselves
        # Where full gradients end the run, the epochs are not those of its steps.
        unplanned = self.epochs == "auto" or one_pass or self.solver == "lbfgs"
        settle("schedule", "inverse" if unplanned else "linear")
        chosen_l2 = self.l2 == "auto" and not self.by_hand
        settle("standardize", chosen_l2 and self.conditioning == "auto")
        return replace(self, **chosen)

    def shaping(self) -> dict[str, Any]:
        """Return the options that the model's bits depend on, for its record."""
        shapes = [f.name for f in fields(self) if f.metadata["shapes_model"]]
        shaping = {name: getattr(self, name) for name in shapes}
        if isinstance(self.class_weight, dict):  # labels may be of any kind, JSON's keys are text
            shaping["class_weight"] = [list(pair) for pair in self.class_weight.items()]
        return shaping

    def command_line(self) -> str:
        """Return the options that differ from their defaults, as the command line spells them."""
        changed = [
            (f.name.replace("_", "-"), getattr(self, f.name))
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return " ".join(_flag(name, value) for name, value in changed)


def _plain(value: Any) -> Any:
    """Return NumPy's numbers as Python's, which print and are stored the same everywhere."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, dict):
        value = shlex.quote(",".join(f"{label}={weight}" for label, weight in value.items()))
    return f"--{name} {value}"


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise OptionError(f"{rule}, got {value!r}")


def is_count(value: object, least: int) -> bool:
    """Return whether a value is a whole number, `least` at least."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, low: float, *, or_equal: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value >= low if or_equal else value > low


def _check_ranges(o: TrainOptions) -> None:
    for name in ("epochs", "batch_size", "max_categories"):
        value = getattr(o, name)
        automatic = name == "epochs" and value == "auto"
        _require(automatic or is_count(value, 1), f"{name} must be a whole number >= 1", value)
    for name in ("threads", "readers", "shuffle_window", "patience"):
        value = getattr(o, name)
        _require(value is None or is_count(value, 1), f"{name} must be a whole number >= 1", value)
    _require(
        is_count(o.seed, 0) and o.seed < 2**63, "seed must be a whole number in [0, 2^63)", o.seed
    )
    for name in ("learning_rate", "halflife", "max_seconds", "tolerance"):
        value = getattr(o, name)
        absent = value is None or (name == "learning_rate" and value == "auto")
        _require(absent or _is_number(value, 0), f"{name} must be a number > 0", value)
    for name in ("l2", "l1", "min_delta"):
        value = getattr(o, name)
        automatic = name == "l2" and value == "auto"
        _require(automatic or _is_number(value, 0, or_equal=True), f"{name} must be >= 0", value)
    if o.holdout is not None:
        _require(_is_number(o.holdout, 0) and o.holdout < 1, "holdout must be in (0, 1)", o.holdout)
    factors = o.class_weight
    if isinstance(factors, dict):
        numbers = all(_is_number(factor, 0, or_equal=True) for factor in factors.values())
        factors = None if numbers else factors
    _require(
        factors in (None, "balanced"),
        "class_weight must be balanced, or a number >= 0 for each class",
        o.class_weight,
    )
    every = str(o.checkpoint_every)
    _require(
        re.fullmatch(r"\d+(\.\d+)?[smh]|[1-9]\d*", every) is not None,
        "checkpoint_every must be a time, as 30s or 5m, or a number of rows",
        o.checkpoint_every,
    )
    _require(parse_bytes(o.memory) >= 10**7, "memory must be at least 10MB", o.memory)


def _check_choices(o: TrainOptions) -> None:
    choices = {
        "schedule": ("auto", *SCHEDULES),
        "conditioning": ("auto", "off"),
        "standardize": ("auto", True, False),
        "shuffle": ("auto", "window", "off", "full"),
        "dtype": ("float32", "float64"),
        "cache": ("auto", "memory", "disk", "off"),
        "nulls": ("error", "zero", "mean", "drop"),
        "solver": ("sgd", "lbfgs"),
        "seen": ("skip", "again"),
        "average": ("auto", True, False),
        "adaptive": (True, False),
        "fit_intercept": (True, False),
        "null_indicators": (True, False),
        "resume": (True, False),
    }
    for name, allowed in choices.items():
        value = getattr(o, name)
        listed = ", ".join(str(a) for a in allowed if a is not None)
        _require(value in allowed, f"{name} must be one of {listed}", value)


def _check_together(o: TrainOptions) -> None:
    if o.standardize is True and o.conditioning == "off":
        raise OptionError("standardize=True scales features, which conditioning=off forbids")
    if o.solver == "lbfgs" and o.batch_size > 1:
        raise OptionError("batch_size is of the solver sgd; lbfgs takes all rows at once")
    if o.resume and o.checkpoint is None:
        raise OptionError("resume goes on from a checkpoint: name its folder with checkpoint=")
    if o.adaptive and (o.batch_size > 1 or o.solver == "lbfgs"):
        raise OptionError("adaptive=True takes a step per row: leave batch_size 1 and solver sgd")

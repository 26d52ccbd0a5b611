"""The only place for the options of a training run: their names, defaults and checks, in groups."""

from __future__ import annotations

import difflib
import math
import numbers
import os
import re
from collections.abc import Iterable
from dataclasses import Field, field, fields, replace
from typing import Any

from fastsoftmax.errors import OptionError, UnknownOptionError
from fastsoftmax.facts import dataclass

SCHEDULES = ("constant", "inverse", "linear", "cosine")
SCALINGS = ("spread", "middle", "deviation")
RENAMED = {"conditioning": "scaling"}  # what options were once called
MAX_STEPS = ("off", "cap", "implicit")
TYPES = ("string", "int64", "float64", "bool")  # that columns of text may be given
UNITS_OF_TIME = {"s": 1, "m": 60, "h": 3600}
# What settings that are trained together may differ in: nothing that concerns which rows come when.
SWEPT = (
    "learning_rate", "schedule", "halflife", "batch_size", "l2", "l1", "class_weight",
    "fit_intercept", "average", "adaptive", "max_step",
)  # fmt: skip
MOST_WORDS, MOST_CHARACTERS = 8, 16  # of an n-gram
MOST_READERS = 8  # unless asked for
COUNT = "must be a whole number >= 1"
Plain = str | bool | int | float | dict | None
LARGEST = 2**63  # what neither a count nor a number of bytes reaches
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
    size = float(match[1]) * UNITS[match[2]]
    _require(size < LARGEST, "memory must be less than 2^63 bytes", text)
    return int(size)


def available_threads() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1


def option(default: Any, text: str, *, shapes_model: bool = True) -> Any:
    """Declare an option: its default, its help text, and whether the model's bits depend on it."""
    return field(default=default, metadata={"help": text, "shapes_model": shapes_model})


def names_option(text: str) -> Any:
    """Declare an option whose value is a list of columns, or None."""
    return field(default=None, metadata={"help": text, "shapes_model": True, "names": True})


def _names(name: str, value: Any) -> tuple[str, ...] | None:
    """Return a list of columns as a tuple; raise OptionError for what is none."""
    if value is None:
        return None
    listed = not isinstance(value, str) and isinstance(value, Iterable)
    names = tuple(value) if listed else ()
    is_list = bool(names) and all(isinstance(each, str) for each in names)
    _require(is_list, f'{name} must be a list of columns, as ["title"]', value)
    for each in names:
        _require(names.count(each) == 1, f'{name} must list "{each}" once', value)
    return names


def parse_sizes(name: str, value: object, most: int) -> tuple[int, int] | None:
    """Return the least n and the largest that "1-3" means, or 2, or "2"; None for none."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(value))
    least, largest = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    fits = 1 <= least <= largest <= most
    _require(fits, f'{name} must be sizes from 1 to {most}, as "1-2" or 1, or none', value)
    return least, largest


def _plain(value: Any) -> Any:
    """Return NumPy's numbers as Python's, which print and are stored the same everywhere, and
    paths as text.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


LISTS = ("sparse",)  # options that take a list of columns


def _checked(name: str, given: dict[str, Any]) -> Any:
    """Return an option's value as Python's; raise OptionError where no option has such a type."""
    if OPTIONS[name].metadata.get("names"):
        return _names(name, given[name])
    value = _plain(given[name])
    if name == "workers":  # they may be an object of the caller's
        return value
    if name in LISTS and isinstance(value, list | tuple):
        return tuple(value)
    _require(isinstance(value, Plain), f"{name} must be a number, a word or a dictionary", value)
    return value


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise OptionError(f"{rule}, got {value!r}")


def is_count(value: object, least: int) -> bool:
    """Return whether a value is a whole number, `least` at least."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require_count(name: str, value: object) -> None:
    _require(is_count(value, 1), f"{name} {COUNT}", value)
    _require(isinstance(value, int) and value < LARGEST, f"{name} must be less than 2^63", value)


def _is_number(value: object, low: float, *, or_equal: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value >= low if or_equal else value > low


def _above_0(group: Any, name: str) -> tuple[str, object]:
    return f"{name} must be a number > 0", getattr(group, name)


def _require_counts(group: Any, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(group, name)
        if value is not None or group.__dataclass_fields__[name].default is not None:
            _require_count(name, value)


def _require_choices(group: Any, **choices: tuple[Any, ...]) -> None:
    for name, allowed in choices.items():
        listed = ", ".join(str(a) for a in allowed)
        value = getattr(group, name)
        _require(value in allowed, f"{name} must be one of {listed}", value)


def check_workers(workers: Any) -> None:
    """Raise OptionError where nobody can be made of what was given."""
    is_address = isinstance(workers, str) and "://" in workers
    is_executor = callable(getattr(workers, "submit", None))
    fits = workers is None or is_count(workers, 1) or is_address or is_executor
    _require(
        fits,
        "workers must be a number of processes >= 1, a distributed.Client or the address of its"
        " scheduler (tcp://host:8786), or an executor that has submit()",
        workers,
    )


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How weights are stepped, and in which precision."""

    epochs: int | str = option("auto", "passes over the rows; auto: until another gains little")
    batch_size: int = option(1, "rows per step; 1 is exact per-sample SGD")
    learning_rate: float | str = option("auto", "first step size; auto: compared on the first rows")
    schedule: str = option("auto", "auto, constant, inverse, linear or cosine")
    halflife: float | None = option(
        None, "rows after which the inverse schedule has halved the step; default one epoch"
    )
    adaptive: bool = option(False, "AdaGrad: a step size of its own for each weight")
    average: bool | str = option("auto", "keep the mean of the weights over the last steps")
    max_step: str = option(
        "auto", "how far a row may step: auto, off, cap or implicit (gradient where the step ends)"
    )
    dtype: str = option("float32", "float32 or float64 weights")

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("learning_rate", "schedule"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, "auto")
        _require_counts(self, ("batch_size",))
        if self.epochs != "auto":
            _require_count("epochs", self.epochs)
        automatic = self.learning_rate == "auto"
        _require(automatic or _is_number(self.learning_rate, 0), *_above_0(self, "learning_rate"))
        _require(self.halflife is None or _is_number(self.halflife, 0), *_above_0(self, "halflife"))
        _require_choices(
            self,
            schedule=("auto", *SCHEDULES),
            adaptive=(True, False),
            average=("auto", True, False),
            max_step=("auto", *MAX_STEPS),
            dtype=("float32", "float64"),
        )
        plain = self.batch_size == 1 and not self.adaptive
        if self.max_step in ("cap", "implicit") and not plain:
            raise OptionError(
                f"max_step={self.max_step} bounds the step of one row by plain SGD: leave"
                " batch_size 1 and adaptive off, or max_step"
            )


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """What is minimised beside the loss, and in which units of the features."""

    l2: float | str = option("auto", "penalty l2/2 ||W||^2; auto: chosen on held-out rows")
    l1: float = option(0.0, "penalty l1 ||W||_1")
    standardize: bool | str = option(
        "auto", "penalise weights of features divided by their deviation; auto: where l2 is chosen"
    )
    scaling: str = option(
        "auto", "how features are brought to one scale: auto, spread, middle, deviation or off"
    )
    fit_intercept: bool = option(True, "learn a bias for each class")
    class_weight: Any = option(None, "factors of the weights of classes, a=2,b=0.5, or balanced")

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("l2", "l1"):
            value = getattr(self, name)
            automatic = name == "l2" and value == "auto"
            fits = automatic or _is_number(value, 0, or_equal=True)
            _require(fits, f"{name} must be >= 0", value)
        factors = self.class_weight
        if isinstance(factors, dict):
            numbers = all(_is_number(factor, 0, or_equal=True) for factor in factors.values())
            factors = None if numbers else factors
        _require(
            factors in (None, "balanced"),
            "class_weight must be balanced, or a number >= 0 for each class",
            self.class_weight,
        )
        _require_choices(
            self,
            standardize=("auto", True, False),
            scaling=("auto", *SCALINGS, "off"),
            fit_intercept=(True, False),
        )
        if self.standardize is True and self.scaling == "off":
            raise OptionError("standardize=True scales features, which scaling=off forbids")


@dataclass(frozen=True, kw_only=True)
class Shuffling:
    """Which rows come when, and which are kept for validation."""

    seed: int = option(0, "seed of the row order and of held-out rows")
    shuffle: str = option("auto", "auto, full, window or off")
    shuffle_window: int | None = option(None, "rows shuffled together; default from memory")
    holdout: float | None = option(None, "fraction of the rows kept for validation")

    def __post_init__(self) -> None:
        """Check every value."""
        _require_counts(self, ("shuffle_window",))
        fits = is_count(self.seed, 0) and self.seed < LARGEST
        _require(fits, "seed must be a whole number in [0, 2^63)", self.seed)
        if self.holdout is not None:
            fits = _is_number(self.holdout, 0) and self.holdout < 1
            _require(fits, "holdout must be in (0, 1)", self.holdout)
        _require_choices(self, shuffle=("auto", "window", "off", "full"))


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What becomes of columns before they are features."""

    nulls: str = option("error", "what becomes of nulls: error, zero, mean or drop")
    null_indicators: bool = option(False, "one more feature for each column that has nulls")
    max_categories: int = option(1000, "categories that a column may have")
    types: Any = option(
        None,
        "types of columns of CSV and JSON lines, a=string,b=float64; default what all values are",
        shapes_model=False,
    )
    sparse: Any = option(
        None,
        "columns that tell the few of a row's numbers that are not 0: their names, or"
        " x=x_indices:x_values for two columns of lists",
        shapes_model=False,
    )
    width: Any = option(
        None,
        "numbers that a row of sparse columns has, of all or as a=X,b=Y; default what the rows"
        " show",
        shapes_model=False,
    )
    zero_based: bool | None = option(
        None,
        "whether the indices of svmlight files begin at 0, not at 1; default where it is plain",
        shapes_model=False,
    )

    def __post_init__(self) -> None:
        """Check every value."""
        _require_counts(self, ("max_categories",))
        _require_choices(
            self, nulls=("error", "zero", "mean", "drop"), null_indicators=(True, False)
        )
        types = {} if self.types is None else self.types
        _ = self.sparse_columns, self.widths
        _require_choices(self, zero_based=(None, True, False))
        fits = isinstance(types, dict) and all(kind in TYPES for kind in types.values())
        _require(fits, f"types gives columns one of {', '.join(TYPES)} each", self.types)

    @property
    def sparse_columns(self) -> tuple[tuple[str, tuple[str, str] | None], ...]:
        """The sparse columns, each with those of its indices and values, if it has such."""
        given: Any = self.sparse
        if isinstance(given, str):
            words = [word.partition("=") for word in given.split(",") if word]
            given = {name: stored.split(":") if stored else None for name, _, stored in words}
        if given is None:
            return ()
        told = "sparse lists columns, or gives two columns to each name, x=x_indices:x_values"
        _require(isinstance(given, list | tuple | dict), told, self.sparse)
        pairs = given.items() if isinstance(given, dict) else [(name, None) for name in given]
        for name, pair in pairs:
            fits = isinstance(name, str) and (pair is None or isinstance(pair, list | tuple))
            fits = fits and (pair is None or len(pair) == 2)
            fits = fits and all(isinstance(stored, str) and stored for stored in pair or ())
            _require(fits, told, self.sparse)
        return tuple((name, None if pair is None else tuple(pair)) for name, pair in pairs)

    @property
    def widths(self) -> tuple[tuple[str, int], ...]:
        """How many numbers rows of sparse columns have, by name, "" for all."""
        given = self.width
        if isinstance(given, str):
            pairs = [word.rpartition("=") for word in given.split(",")]
            given = {name: int(count) if count.isdigit() else count for name, _, count in pairs}
        given = {} if given is None else given if isinstance(given, dict) else {"": given}
        for name, count in given.items():
            fits = isinstance(name, str) and is_count(count, 1) and count < 2**31
            _require(fits, "width is a whole number in 1..2^31 - 1, of all or by name", self.width)
        return tuple(given.items())


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Which columns are texts, and what becomes of them."""

    text: tuple[str, ...] | None = names_option("columns of texts, whose n-grams are features")
    hashed: tuple[str, ...] | None = names_option(
        "columns of categories, ids or tags whose values are hashed to 2^bits features, or 2^18"
    )
    ngrams: str | int | None = option(
        "1-2", "n-grams of words: the least n and the largest; or none"
    )
    chars: str | int | None = option(None, "n-grams of characters: the least n and the largest")
    bits: int | None = option(
        None, "hash n-grams to 2^bits features, 8 to 28; default a vocabulary, which is learnt"
    )
    min_count: int = option(2, "rows that an n-gram must be in to be a feature")
    max_features: int = option(2**20, "features of a column of texts: those in the most rows")
    lower: bool = option(True, "let upper and lower case be the same")
    normalize: str | None = option(None, "a form of Unicode first: NFC, NFD, NFKC or NFKD")
    norm: str | None = option("l2", "norm by which a text's features are divided: l2, l1 or none")
    tf: str = option("count", "what the count of an n-gram becomes: count, log or binary")

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("ngrams", "chars", "normalize", "norm", "bits"):
            if str(getattr(self, name)).lower() == "none":
                object.__setattr__(self, name, None)
        for name, most in (("ngrams", MOST_WORDS), ("chars", MOST_CHARACTERS)):
            sizes = parse_sizes(name, getattr(self, name), most)
            if sizes is not None:
                told = "-".join(map(str, sorted(set(sizes))))
                object.__setattr__(self, name, told)
        fits = self.bits is None or (is_count(self.bits, 8) and self.bits <= 28)
        _require(fits, "bits must be a whole number from 8 to 28, or none", self.bits)
        _require_counts(self, ("min_count", "max_features"))
        _require(self.max_features < 2**31, "max_features must be < 2^31", self.max_features)
        _require_choices(
            self,
            lower=(True, False),
            normalize=(None, "NFC", "NFD", "NFKC", "NFKD"),
            norm=(None, "l1", "l2"),
            tf=("count", "log", "binary"),
        )
        if self.ngrams is None and self.chars is None:
            raise OptionError("ngrams and chars are both none: of texts, nothing would be left")
        given = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        given = [name for name in given if self.hashed is None or name not in ("hashed", "bits")]
        if given and self.text is None:
            raise OptionError(f"{given[0]} is of columns of texts: name them with text=")

    @property
    def words(self) -> tuple[int, int] | None:
        """The least and the largest n of n-grams of words."""
        return parse_sizes("ngrams", self.ngrams, MOST_WORDS)

    @property
    def characters(self) -> tuple[int, int] | None:
        """The least and the largest n of n-grams of characters."""
        return parse_sizes("chars", self.chars, MOST_CHARACTERS)


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Into how many parts rows are dealt, and who works on these."""

    shards: int | str | None = option(
        None, "parts to which rows are dealt, to be worked on at once; auto: by rows and workers"
    )
    workers: int | Any = option(
        None,
        "who works on shards: a number of processes, or the address of a Dask scheduler; default"
        " threads",
        shapes_model=False,
    )

    def __post_init__(self) -> None:
        """Check every value."""
        if self.shards != "auto":
            _require_counts(self, ("shards",))
        if self.workers is not None and self.shards is None:
            raise OptionError(
                "workers do the work of shards: say into how many parts the rows are dealt, as"
                " shards=8, or shards=auto"
            )
        check_workers(self.workers)

    @property
    def count(self) -> int:
        """How many shards there are, once that is resolved; 1 is a run without."""
        return self.shards if isinstance(self.shards, int) else 1


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """How far a run goes."""

    solver: str = option("sgd", "sgd, or lbfgs: full gradients, to the optimum")
    tolerance: float | None = option(
        None, "end when the estimated gain is below this share of the loss"
    )
    patience: int | None = option(
        None, "end after so many epochs without a better validation loss; keep the best weights"
    )
    min_delta: float = option(0.0, "validation loss must be lower by this to be better")
    max_seconds: float | None = option(None, "stop after this time", shapes_model=False)

    def __post_init__(self) -> None:
        """Check every value."""
        _require_counts(self, ("patience",))
        for name in ("tolerance", "max_seconds"):
            value = getattr(self, name)
            _require(value is None or _is_number(value, 0), *_above_0(self, name))
        fits = _is_number(self.min_delta, 0, or_equal=True)
        _require(fits, "min_delta must be >= 0", self.min_delta)
        _require_choices(self, solver=("sgd", "lbfgs"))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How rows are read, and what they may take meanwhile."""

    seen: str = option(
        "skip", "with init: skip row groups that its model was trained on, or train on them again"
    )
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

    def __post_init__(self) -> None:
        """Check every value."""
        _require_counts(self, ("threads", "readers"))
        _require(self.memory_bytes >= 10**7, "memory must be at least 10MB", self.memory)
        _require_choices(self, seen=("skip", "again"), cache=("auto", "memory", "disk", "off"))

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


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is kept and told of a run while it goes on."""

    checkpoint: str | None = option(
        None, "folder where the state of the run is kept", shapes_model=False
    )
    checkpoint_every: str | int = option(
        "30s", "time between checkpoints, as 30s or 5m, or rows", shapes_model=False
    )
    resume: bool = option(False, "go on from the last checkpoint", shapes_model=False)
    verbose: bool = option(False, "log one line an epoch to stderr", shapes_model=False)
    log_json: str | None = option(
        None, "a file for the run's events, a line of JSON each", shapes_model=False
    )

    def __post_init__(self) -> None:
        """Check every value."""
        every = str(self.checkpoint_every)
        _require(
            re.fullmatch(r"\d+(\.\d+)?[smh]|[1-9]\d*", every) is not None,
            "checkpoint_every must be a time, as 30s or 5m, or a number of rows",
            self.checkpoint_every,
        )
        _require_choices(self, resume=(True, False))
        is_named = self.log_json is None or isinstance(self.log_json, str)
        _require(is_named, "log_json must be the path of a file", self.log_json)
        if self.resume and self.checkpoint is None:
            raise OptionError("resume goes on from a checkpoint: name its folder with checkpoint=")


@dataclass(frozen=True)
class TrainOptions:
    """How to train: frozen groups of options, checked once.

    Options are given flat, by `of` and `changed`: nobody but the code needs to know their groups.
    """

    steps: Steps = Steps()
    penalty: Penalty = Penalty()
    shuffling: Shuffling = Shuffling()
    columns: Columns = Columns()
    texts: Texts = Texts()
    sharding: Sharding = Sharding()
    stopping: Stopping = Stopping()
    reading: Reading = Reading()
    keeping: Keeping = Keeping()

    def __post_init__(self) -> None:
        """Check what groups must agree on."""
        full = self.stopping.solver == "lbfgs"
        if full and self.steps.batch_size > 1:
            raise OptionError("batch_size is of the solver sgd; lbfgs takes all rows at once")
        if self.steps.adaptive and (self.steps.batch_size > 1 or full):
            raise OptionError(
                "adaptive=True takes a step per row: leave batch_size 1 and solver sgd"
            )

    @classmethod
    def of(cls, **given: Any) -> TrainOptions:
        """Build options from keywords; a name that does not exist raises UnknownOptionError."""
        return cls().changed(**given)

    def changed(self, **given: Any) -> TrainOptions:
        """Return the options with some of them others."""
        for name in given:
            if name in RENAMED:
                raise UnknownOptionError(f"the option {name} is called {RENAMED[name]} now")
            if name not in OPTIONS:
                nearest = difflib.get_close_matches(name, OPTIONS, n=1, cutoff=0.5)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise UnknownOptionError(f"there is no option {name!r}{hint}")
        groups = {}
        for group in fields(self):
            held = getattr(self, group.name)
            own = {f.name: _checked(f.name, given) for f in fields(held) if f.name in given}
            groups[group.name] = replace(held, **own) if own else held
        return replace(self, **groups)

    def flat(self) -> dict[str, Any]:
        """Return all options by name."""
        groups = [getattr(self, group.name) for group in fields(self)]
        return {f.name: getattr(group, f.name) for group in groups for f in fields(group)}

    @property
    def by_hand(self) -> bool:
        """Whether a step size is given: then all else that is auto takes its simplest value."""
        return self.stopping.solver == "sgd" and not isinstance(self.steps.learning_rate, str)

    @property
    def curvature_memory(self) -> int:
        """The bytes of memory by which the curvature of full gradients is chosen.

        With shards `memory` is that of each worker, which may not shape the model.
        """
        one = self.sharding.count == 1
        return self.reading.memory_bytes if one else parse_bytes(str(OPTIONS["memory"].default))

    @property
    def leaves_nothing_open(self) -> bool:
        """Whether nothing is to be chosen on rows, once resolved: features too are as they are."""
        return self.by_hand and self.penalty.scaling == "off"

    def resolved(self, *, one_pass: bool) -> TrainOptions:
        """Return the options with those values of `auto` resolved that depend on no data."""
        held, chosen = self.flat(), dict[str, Any]()

        def resolve(name: str, value: Any) -> None:
            if held[name] == "auto":
                chosen.setdefault(name, value)

        if one_pass:
            resolve("epochs", 1)
        if self.by_hand:
            resolve("epochs", 10)
            resolve("schedule", "constant" if one_pass else "linear")
            resolve("l2", 0.0)
            if self.penalty.standardize is not True:  # which asks for features of one scale
                resolve("scaling", "off")
        # The mean of weights that are 0 now and then is never 0.
        sgd = self.stopping.solver == "sgd"
        resolve("average", not self.by_hand and sgd and not self.penalty.l1)
        if self.steps.adaptive:
            resolve("schedule", "constant")  # its steps fall by themselves
        # Where full gradients end the run, the epochs are not those of its steps.
        unplanned = self.steps.epochs == "auto" or one_pass or not sgd
        resolve("schedule", "inverse" if unplanned else "linear")
        chosen_l2 = self.penalty.l2 == "auto" and not self.by_hand
        resolve("standardize", chosen_l2 and self.penalty.scaling != "off")
        return self.changed(**chosen)

    def shaping(self) -> dict[str, Any]:
        """Return the options that the model's bits depend on, for its record."""
        held = self.flat()
        shaping = {name: held[name] for name, f in OPTIONS.items() if f.metadata["shapes_model"]}
        if isinstance(self.penalty.class_weight, dict):  # its labels may be of any kind, JSON's
            # keys are text
            shaping["class_weight"] = [list(pair) for pair in self.penalty.class_weight.items()]
        for name in ("text", "hashed"):
            if shaping[name] is not None:
                shaping[name] = list(shaping[name])
        return shaping

    def given(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name."""
        held = self.flat().items()
        return {name: value for name, value in held if value != OPTIONS[name].default}


# Every option by its name, as it is declared.
OPTIONS: dict[str, Field[Any]] = {
    f.name: f
    for group in (Steps, Penalty, Shuffling, Columns, Texts, Sharding, Stopping, Reading, Keeping)
    for f in fields(group)
}

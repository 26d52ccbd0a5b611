"""States: every field is kept, and a stored one that is not as it should be is refused."""

from __future__ import annotations

import ast
import inspect
import json
import types
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.optim.optimizer import OptimizerState
from fastsoftmax.optim.state import array, copies, dump, fill, load
from fastsoftmax.training import callbacks, halving, learner, learner_state, trainer
from fastsoftmax.training.trainer_state import TrainerState

SIZES = {"K": 3, "d": 4, "columns": 5, "weights": np.dtype(np.float32)}


def example(kind: Any, metadata: Any, random: np.random.Generator) -> Any:
    """Return a value of a kind, other than any default."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return example(next(each for each in inner if each is not type(None)), metadata, random)
    if kind is np.ndarray:
        shape = [SIZES[size] for size in metadata.get("shape", ("K",))]
        dtype = metadata.get("dtype", "float64")
        return random.normal(size=shape).astype(SIZES.get(dtype, dtype))
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: example(hints[f.name], f.metadata, random) for f in fields(kind)})
    if isinstance(kind, type) and issubclass(kind, dict):  # a dictionary with typed keys
        return {name: example(hint, {}, random) for name, hint in get_type_hints(kind).items()}
    if origin is dict:
        return {key: example(inner[1], {}, random) for key in ("one", "another")}
    if origin in (list, tuple):
        several = inner if origin is tuple and inner[-1] is not Ellipsis else (inner[0],) * 2
        return origin(example(each, {}, random) for each in several)
    plain = {bool: True, int: int(random.integers(1, 99)), float: float(random.uniform(0.1, 9))}
    return plain.get(kind, f"word {random.integers(99)}")


def assert_same(got: Any, want: Any, name: str = "") -> None:
    """Compare two values, and all that is in them, by type too."""
    assert type(got) is type(want), name
    if isinstance(want, np.ndarray):
        assert got.dtype == want.dtype
        assert_array_equal(got, want, err_msg=name)
    elif is_dataclass(want):
        for each in fields(want):
            assert_same(getattr(got, each.name), getattr(want, each.name), f"{name}.{each.name}")
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key], f"{name}.{key}")
    elif isinstance(want, list | tuple):
        assert len(got) == len(want)
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            assert_same(one, other, f"{name}.{i}")
    else:
        assert got == want, name


@pytest.mark.parametrize("kind", [TrainerState, learner_state.LearnerState, OptimizerState])
def test_every_field_of_a_state_is_kept(kind):
    want = example(kind, {}, np.random.default_rng(0))
    facts, arrays = dump(want)
    assert_same(load(kind, (json.loads(json.dumps(facts)), arrays), SIZES), want)


def test_a_state_with_a_field_that_another_lacks_is_refused():
    more = make_dataclass("More", [("forgotten", int)], bases=(TrainerState,), kw_only=True)
    old = dump(example(TrainerState, {}, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="other fields"):
        load(more, old, SIZES)
    assert load(TrainerState, old, SIZES).visited > 0


def issubclass_of_callback(kind: Any) -> bool:
    """Return whether this is a callback."""
    return inspect.isclass(kind) and issubclass(kind, callbacks.Callback)


# What objects of a run hold beside their states: set once, or made anew from what is kept.
MADE_ANEW = {
    "Trainer": {"callbacks", "told_to_stop", "_mixing", "_started"},
    "Learner": {"init", "before", "state"},
    "Reporting": {"_reported", "_told"},
    "Halving": {"learner"},  # of the event
}


@pytest.mark.parametrize(
    "kind",
    [
        trainer.Trainer,
        learner.Learner,
        halving.Halving,
        halving.Survivors,
        *(each for each in vars(callbacks).values() if issubclass_of_callback(each)),
    ],
)
def test_nothing_that_changes_in_a_run_stands_outside_a_state(kind):
    """An attribute that a method sets is not kept: it belongs into a state, or is made anew."""
    tree = ast.parse(inspect.getsource(kind))
    changed = set()
    for method in ast.walk(tree):
        if isinstance(method, ast.FunctionDef) and method.name != "__init__":
            for node in ast.walk(method):
                stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                if stored and ast.unparse(node.value) == "self":
                    changed.add(node.attr)
    assert changed <= MADE_ANEW.get(kind.__name__, set())


class Counted(TypedDict):
    count: int


class Facts(Counted, total=False):
    share: float


@dataclass
class Small:
    name: str
    pair: tuple[int, float]
    facts: list[Facts]
    W: np.ndarray = array("K", "d", dtype="weights")
    loss: float | None = None
    views: dict[str, np.ndarray] = field(default_factory=dict)


def small() -> Small:
    W = np.ones((3, 4), np.float32)
    return Small("a", (1, 0.5), [{"count": 1}], W, 0.25, {"b": np.zeros(2)})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("name", 3),
        ("name", None),
        ("pair", [1]),
        ("pair", [1, 2.0, 3]),
        ("pair", ["1", 2.0]),
        ("pair", [True, 2.0]),
        ("pair", [2**63, 2.0]),
        ("facts", {}),
        ("facts", [{}]),
        ("facts", [{"count": 1, "more": 2}]),
        ("facts", [{"count": 1.5}]),
        ("loss", "0.25"),
        ("loss", [0.25]),
        ("W", None),
        ("W", 5),
        ("views", {"other": "array"}),
        ("views", []),
    ],
)
def test_a_fact_of_another_type_is_refused(name, told):
    facts, arrays = dump(small())
    with pytest.raises(ValueError, match=r"\w"):
        load(Small, (facts | {name: told}, arrays), SIZES)


@pytest.mark.parametrize("name", ["name", "W", "views"])
def test_a_field_that_is_missing_or_unknown_is_refused(name):
    facts, arrays = dump(small())
    with pytest.raises(ValueError, match="other fields"):
        load(Small, ({key: told for key, told in facts.items() if key != name}, arrays), SIZES)
    with pytest.raises(ValueError, match="other fields"):
        load(Small, (facts | {"more": 1}, arrays), SIZES)


@pytest.mark.parametrize(
    "W",
    [np.ones((3, 5), np.float32), np.ones((3, 4)), np.full((3, 4), np.nan, np.float32), None],
)
def test_an_array_of_another_shape_or_dtype_or_not_finite_is_refused(W):
    facts, arrays = dump(small())
    arrays = {name: each for name, each in (arrays | {"W": W}).items() if each is not None}
    with pytest.raises(ValueError, match="W is"):
        load(Small, (facts, arrays), SIZES)


def test_what_is_none_stays_so_and_arrays_are_copied():
    state = small()
    state.loss = None
    kept = dump(state)
    state.W[:] = 7
    assert load(Small, kept, SIZES).loss is None
    assert (load(Small, kept, SIZES).W == 1).all()


def test_views_are_filled_by_arrays_of_the_same_names_and_shapes():
    views = {"a": np.zeros((2, 3)), "b": np.zeros(2, np.float32)}
    stored = copies(views)
    stored["a"][:] = 1
    fill(views, stored)
    assert (views["a"] == 1).all()
    for damage in ({"a": np.zeros(3)}, {"b": np.zeros(2)}, {"b": np.full(2, np.inf, np.float32)}):
        with pytest.raises(ValueError, match="as it should be"):
            fill(views, stored | damage)
    with pytest.raises(ValueError, match="others"):
        fill(views, {"a": stored["a"]})

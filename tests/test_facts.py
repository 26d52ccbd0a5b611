"""Classes of named facts: the same to their users as those of the standard library."""

from __future__ import annotations

import ast
import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from fastsoftmax.facts import dataclass
from tests import floors


def classes(make: Any) -> tuple[Any, Any, Any]:
    """Return a frozen class, one that changes, and one compared by identity, each by `make`."""

    @make(frozen=True, kw_only=True)
    class Frozen:
        """Facts."""

        a: int
        b: tuple[int, ...] = ()
        hidden: int = field(default=7, repr=False, compare=False)

    @make
    class Changing:
        """Facts that change."""

        a: float
        names: list[str] = field(default_factory=list)

        def __post_init__(self) -> None:
            self.a = float(self.a)

    @make(frozen=True, eq=False)
    class Itself:
        """A thing."""

        a: int

    return Frozen, Changing, Itself


OURS, THEIRS = classes(dataclass), classes(dataclasses.dataclass)


@dataclass(frozen=True)
class Kept:
    """Facts that are pickled."""

    a: int
    b: str = "b"


@pytest.mark.parametrize(("ours", "theirs"), zip(OURS, THEIRS, strict=True))
def test_they_look_and_compare_like_those_of_the_standard_library(ours, theirs):
    for values in ({"a": 1}, {"a": 2}):
        assert repr(ours(**values)) == repr(theirs(**values))
        assert dataclasses.asdict(ours(**values)) == dataclasses.asdict(theirs(**values))
        for others in ({"a": 1}, {"a": 2}):
            same = ours(**values) == ours(**others)
            assert same == (theirs(**values) == theirs(**others))
    assert ours(a=1) != theirs(a=1)
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)


def test_fields_that_are_not_compared_are_not():
    Frozen, _, _ = OURS
    assert Frozen(a=1, hidden=1) == Frozen(a=1, hidden=2)
    assert hash(Frozen(a=1, b=(2,), hidden=1)) == hash(Frozen(a=1, b=(2,), hidden=2))
    assert len({Frozen(a=1), Frozen(a=1), Frozen(a=2)}) == 2


def test_frozen_facts_cannot_be_changed():
    Frozen, Changing, Itself = OURS
    for made in (Frozen(a=1), Itself(1)):
        with pytest.raises(dataclasses.FrozenInstanceError, match="'a'"):
            made.a = 2
        with pytest.raises(dataclasses.FrozenInstanceError, match="'other'"):
            made.other = 2
        with pytest.raises(dataclasses.FrozenInstanceError, match="'a'"):
            del made.a
        assert made.a == 1
    other = Changing(1)
    other.a = 3.0
    assert other == Changing(3)


def test_they_are_replaced_copied_and_pickled():
    kept = Kept(1)
    assert dataclasses.replace(kept, a=2) == Kept(2)
    assert copy.deepcopy(kept) == kept == pickle.loads(pickle.dumps(kept))
    with pytest.raises(TypeError, match="missing"):
        Kept()
    with pytest.raises(TypeError, match="positional"):
        OURS[0](1)


@pytest.mark.parametrize("module", sorted(set(floors.modules()) - {"facts"}))
def test_all_classes_of_facts_are_made_here(module):
    for node in ast.walk(floors.tree(floors.modules()[module])):
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
            assert "dataclass" not in {each.name for each in node.names}

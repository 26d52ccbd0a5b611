"""The only place that adds up what comes of tasks: in their order, in a tree of a fixed shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def merged(values: Iterable[Any]) -> Any:
    """Return the sum of values, which have `+`: neighbours first, then neighbouring pairs, ...

    The shape follows from how many there are, so that the sum has the same bits whoever was first;
    and no more of them are held at once than the tree is high.
    """
    trees: list[tuple[int, Any]] = []  # of falling size, each a power of two
    for value in values:
        size = 1
        while trees and trees[-1][0] == size:
            value = trees.pop()[1] + value
            size *= 2
        trees.append((size, value))
    _, total = trees.pop()
    while trees:
        total = trees.pop()[1] + total
    return total

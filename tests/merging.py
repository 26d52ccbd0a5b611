"""Random ways to cut rows into parts, and to group the sums over these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st


@st.composite
def cuts(draw: st.DrawFn, rows: int) -> list[tuple[int, int]]:
    """Return spans, some of them empty, that make up all rows."""
    inner = sorted(draw(st.lists(st.integers(0, rows), max_size=6)))
    return list(zip([0, *inner], [*inner, rows], strict=True))


@st.composite
def groupings(draw: st.DrawFn) -> Callable[[Sequence[Any]], Any]:
    """Return a way to add sums, neighbours first to one another in any order."""
    choose = draw(st.randoms(use_true_random=False))

    def merge(sums: Sequence[Any]) -> Any:
        left = list(sums)
        while len(left) > 1:
            i = choose.randrange(len(left) - 1)
            left[i : i + 2] = [left[i] + left[i + 1]]
        return left[0]

    return merge

"""The only place that compiles kernels ahead of need, for the processes that come after."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.data.parts import Dense
from fastsoftmax.data.source import Chunk
from fastsoftmax.data.text import look_at_nothing
from fastsoftmax.inference.answers import Judgement
from fastsoftmax.inference.scorer import Scorer, TrainedWeights
from fastsoftmax.inference.sparse_scorer import SparseScorer
from fastsoftmax.kernels.ahead import Crew
from fastsoftmax.kernels.checksum import checksum
from fastsoftmax.kernels.code import code_folder
from fastsoftmax.kernels.compile import Call, announce, are_missing, foreseeing
from fastsoftmax.kernels.scoring import new_judged_sums
from fastsoftmax.labels import given_classes
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.rules.choice import RULES
from fastsoftmax.optim.rules.rule import Rule
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.sparse_gradient import SparseDiagonal, SparseGradient
from fastsoftmax.optim.sparse_moments import new_moment_sums
from fastsoftmax.options import TrainOptions, available_threads
from fastsoftmax.training.foresight import (
    ITEM_BYTES,
    NOTHING,
    PARTS,
    SMALL,
    SPARSE,
    lay_out_nothing,
    learn_nothing,
    pass_over_nothing,
    step_over_nothing,
)

# Kernels of sparse rows are others where penalties wait for a feature; others' are not.
PENALTIES = {False: (0.0,), True: (0.0, 1.0)}


def warm_up() -> int:
    """Compile all that runs may need, on all cores; return how many kernels were not kept yet."""
    calls = list(dict.fromkeys(all_calls()))
    missing = are_missing(calls)
    with Crew(missing, available_threads()):
        announce(missing)
        for call in calls:
            call.kernel.ready(call.kinds)
    return len(missing)


def build() -> None:
    """Compile all that runs may need, on all cores, for the build hook: nothing of it runs here."""
    with Crew(missing := are_missing(all_calls()), available_threads()) as crew:
        for call in missing:
            crew.wait_for(call)
    for call in are_missing(missing):
        call.kernel.compile(call.kinds)


def all_calls() -> list[Call]:
    """Return all calls of kernels that no process before has made machine code of in this one."""
    with foreseeing() as calls, np.errstate(all="ignore"):
        for dtype in ("float32", "float64"):
            for average in (False, True):
                for rule in RULES:
                    for l1 in PENALTIES[rule.nonzeros is not None]:
                        _step(rule, l1, dtype=dtype, average=average)
            pass_over_nothing(FullGradient(2, 1, dtype, 1))
            pass_over_nothing(SparseGradient(2, 1, dtype, 1), SPARSE)
            for small in SMALL.values():
                learn_nothing(small(dtype))
            learn_nothing(SparseDiagonal(2, 1, dtype, None), SPARSE)
            _score(np.zeros((2, 1), dtype))
            list(SparseScorer(np.zeros((2, 1), dtype), np.zeros(2, dtype), None).blocks(SPARSE))
        for parts in (PARTS, SPARSE):
            new_moment_sums(1, sparse=parts is SPARSE).add(parts, NOTHING[0], NOTHING[2])
        look_at_nothing()
        lay_out_nothing(ITEM_BYTES)
        checksum(np.zeros(1))
    return calls


def _step(rule: type[Rule], l1: float, **options: Any) -> None:
    """Take a step of a rule; l1: a penalty of each feature's own."""
    K, d, own = rule.example
    parts = PARTS if rule.nonzeros is None else SPARSE
    sgd = SGD(K, d, TrainOptions.of(threads=1, **options, **own), rule.nonzeros)
    if l1 > 0:
        sgd.penalise(np.zeros(d), np.full(d, l1))
    step_over_nothing(sgd, parts, measures=True)


def _score(weights: np.ndarray) -> None:
    """Answer and judge a row in all ways."""
    scorer = Scorer(TrainedWeights(weights, weights[:, 0], None))
    parts = (Dense(np.ones((1, 1), np.float32)),)
    out = np.empty((1, len(weights)), weights.dtype)
    scorer.logits(out, parts)
    scorer.probabilities(out, np.empty(1, np.int64), parts)
    row = Chunk(parts, np.zeros(1, np.int32), np.ones(1), 0, 0)
    judgement = Judgement(given_classes([0, 1]), 1, 1, np.zeros(2), tabulate=True)
    scorer.judge(new_judged_sums(2, 1, tabulate=True), judgement, row)


def kept_in() -> str | None:
    """Return the folder where machine code is kept, or None where none can be."""
    folder = code_folder()
    return None if folder is None else str(folder)

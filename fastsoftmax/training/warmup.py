"""The only place that compiles kernels ahead of need, for the processes that come after."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from fastsoftmax.data.loading.shuffle import ShufflePlan, row_order
from fastsoftmax.data.parts import Dense
from fastsoftmax.data.source import Chunk
from fastsoftmax.inference.answers import Judgement
from fastsoftmax.inference.scorer import Scorer, TrainedWeights
from fastsoftmax.kernels.checksum import checksum
from fastsoftmax.kernels.code import code_folder
from fastsoftmax.kernels.scoring import new_judged_sums
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.labels import given_classes
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.hessian import WholeHessian
from fastsoftmax.optim.moments import MomentSums
from fastsoftmax.optim.preconditioner import Batch, ByClass, Diagonal
from fastsoftmax.optim.rules.choice import RULES
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions


def warm_up() -> Iterator[tuple[str, float]]:
    """Compile all that a training run may need; yield what was compiled and its seconds.

    What is kept from before is not compiled again, and takes no time.
    """
    parts = (Dense(np.zeros((0, 1), np.float32)),)
    started = time.perf_counter()
    row_order(ShufflePlan("all", 2), 2, 0, 0, 0)
    checksum(np.zeros(1))
    for size in (1, 2, 4, 8):  # bytes of a number
        columns = np.zeros((2, 2), f"u{size}", order="F")
        copy_matrix(np.empty((2, 2), columns.dtype), columns)
    now = time.perf_counter()
    yield "what lays rows out", now - started
    started = now
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0))
    one = (np.zeros(1, np.int64), np.zeros(1, np.int32), np.ones(1))
    row = Batch((Dense(np.ones((1, 1), np.float32)),), *one)
    MomentSums(1).add(parts, nothing[0], nothing[2])
    now = time.perf_counter()
    yield "what measures columns", now - started
    started = now
    for dtype in ("float32", "float64"):
        with FullGradient(2, 1, dtype, 1) as full:
            full.add(parts, *nothing)
        for curvature in (
            WholeHessian(2, 1, dtype, None, 1),
            ByClass(2, 1, dtype, None, matrices=1, threads=1),
            Diagonal(2, 1, dtype, None),
        ):
            with curvature:
                curvature.learn(np.zeros((2, 2)), row, np.ones(2), np.ones(2))
                curvature.apply(np.zeros((2, 2)))
        now = time.perf_counter()
        yield f"full gradients, {dtype}", now - started
        started = now
    for dtype in ("float32", "float64"):
        _score(np.zeros((2, 1), dtype))
        now = time.perf_counter()
        yield f"predictions, {dtype}", now - started
        started = now
    for average in (False, True):
        for dtype in ("float32", "float64"):
            for rule in RULES:
                K, d, own = rule.example
                options = TrainOptions.of(dtype=dtype, average=average, threads=1, **own)
                with SGD(K, d, options) as sgd:
                    sgd.warm_up(parts, measures=True)
                    sgd.squared_norms(parts, np.zeros(0, np.int64))
                now = time.perf_counter()
                yield f"{rule.name}, {dtype}{', averaged' if average else ''}", now - started
                started = now


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

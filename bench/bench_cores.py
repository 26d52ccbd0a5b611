"""How speed grows with threads, up to the cores at hand; the bits must not differ by one.

Weights after the same steps are compared for every number of threads, also for those between the
ones that are timed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.bench_kernels import Case
from bench.interleave import median_seconds
from fastsoftmax.data.parts import Dense
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.options import available_threads

SHAPES = ((784, 10), (4096, 10), (128, 100), (768, 1000), (2048, 1000), (1024, 10_000))
COMPARED = 3000  # rows at most, over which bits are compared


def numbers_of_threads() -> list[int]:
    """Return 1, 2, 4, ... and all cores."""
    cores = available_threads()
    return sorted({2**i for i in range(cores.bit_length()) if 2**i <= cores} | {cores})


def steps_case(d: int, K: int, n: int, threads: int) -> Case:
    """Return float32 rows in order, and what steps through them with so many threads."""
    return Case(d, K, n, ("float32", "float32", False, False, threads))


class Gradient:
    """One pass of full gradients over float32 rows."""

    def __init__(self, d: int, K: int, n: int, threads: int) -> None:
        rng = np.random.default_rng(d + K)
        self.parts = (Dense(rng.integers(0, 4, (n, d), dtype=np.uint8).astype("float32")),)
        self.y, self.order, self.w = (
            rng.integers(0, K, n).astype(np.int32),
            np.arange(n),
            np.ones(n),
        )
        self.full = FullGradient(K, d, "float32", threads)
        self.zeros = np.zeros((K, d)), np.zeros(K)

    def run(self) -> None:
        """Add all rows up."""
        self.full.begin(*self.zeros)
        self.full.add(self.parts, self.order, self.y, self.w)


def add_rows(report, what: str, d: int, K: int, n: int, seconds: dict[int, float]) -> None:
    """Report how fast each number of threads was."""
    for threads, each in seconds.items():
        report.add(
            f"Speed with more threads, {available_threads()} cores, float32",
            what=what,
            d=d,
            K=K,
            threads=threads,
            **{
                "rows/s": f"{n / each:,.0f}",
                "GFLOP/s": f"{n / each * 4 * K * d / 1e9:.0f}",
                "one thread = 1": f"{seconds[1] / each:.2f}",
            },
        )


@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_steps(benchmark, report, quick, d, K) -> None:
    """Time exact steps with 1, 2, 4, ... threads in turn."""
    weights = []
    for threads in range(1, available_threads() + 1):
        case = steps_case(d, K, max(64, min(COMPARED, int(2e10 / (4 * K * d)))), threads)
        case.run()
        weights.append(case.sgd.weights.get())
        case.sgd.close()
    for coef, intercept in weights:
        np.testing.assert_array_equal(coef, weights[0][0])
        np.testing.assert_array_equal(intercept, weights[0][1])
    n = max(64, min(200_000, int((4e8 if quick else 3e10) / (4 * K * d))))
    cases = {threads: steps_case(d, K, n, threads) for threads in numbers_of_threads()}
    runs: dict[str, Callable[[], None]] = {str(t): case.run for t, case in cases.items()}
    seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    for case in cases.values():
        case.sgd.close()
    add_rows(report, "steps", d, K, n, {int(name): each for name, each in seconds.items()})


@pytest.mark.parametrize(("d", "K"), [(784, 10), (768, 1000)])
def bench_gradients(benchmark, report, quick, d, K) -> None:
    """Time full gradients with 1, 2, 4, ... threads in turn."""
    n = max(64, min(200_000, int((4e8 if quick else 3e10) / (4 * K * d))))
    cases = {threads: Gradient(d, K, n, threads) for threads in numbers_of_threads()}
    runs: dict[str, Callable[[], None]] = {str(t): case.run for t, case in cases.items()}
    seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    sums = [case.full.gradient() for case in cases.values()]
    for coef, intercept in sums:
        np.testing.assert_array_equal(coef, sums[0][0])
        np.testing.assert_array_equal(intercept, sums[0][1])
    for case in cases.values():
        case.full.close()
    add_rows(report, "full gradients", d, K, n, {int(t): each for t, each in seconds.items()})

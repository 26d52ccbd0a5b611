"""How the time of an epoch grows with rows, features and classes: a straight line is the claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from bench.interleave import median_seconds

# What grows, the values it takes, and the (n, d, K) it grows from.
GROWTHS = {
    "n": ((10_000, 100_000, 1_000_000, 10_000_000), (0, 28, 2)),
    "d": ((64, 128, 256, 512, 1024, 2048, 4096), (10_000, 0, 10)),
    "K": ((10, 30, 100, 300, 1000, 3000), (6_000, 256, 0)),
}


@pytest.mark.parametrize("grown", GROWTHS)
def bench_growth(benchmark, report, quick, growth_plot, grown) -> None:
    """Time an epoch of `train`, everything counted, at each size in turn."""
    values, sizes = GROWTHS[grown]
    runs = {}
    for value in values[: 3 if quick else None]:
        n, d, K = (value if size == 0 else size for size in sizes)
        rng = np.random.default_rng(value)
        X = rng.random((n, d), dtype=np.float32)
        y = rng.permutation(np.arange(n) % K)  # every class is there
        runs[value] = lambda X=X, y=y: fastsoftmax.train(
            X, y, epochs=1, threads=1, learning_rate=1e-4
        )
    seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    growth_plot[grown] = seconds
    for value, taken in seconds.items():
        n, d, K = (value if size == 0 else size for size in sizes)
        flops = 4 * K * d * n
        report.add(
            "How the time of one epoch grows",
            n=f"{n:,}",
            d=d,
            K=K,
            **{
                "seconds": f"{taken:.4f}",
                "rows/s": f"{n / taken:,.0f}",
                "GFLOP/s": f"{flops / taken / 1e9:.1f}",
            },
        )


@pytest.fixture(scope="module")
def growth_plot(quick, report):
    """Collect seconds by what grows, and draw them: log against log, slope 1 beside them."""
    found: dict[str, dict[int, float]] = {}
    yield found
    pyplot = pytest.importorskip("matplotlib.pyplot")
    if quick:
        return
    figure, panes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.6), squeeze=False)
    for pane, (grown, seconds) in zip(panes[0], found.items(), strict=True):
        values, taken = list(seconds), list(seconds.values())
        pane.loglog(values, taken, "o-", label="an epoch")
        line = [taken[-1] * value / values[-1] for value in values]
        pane.loglog(values, line, "--", color="grey", label="proportional")
        pane.set_xlabel({"n": "rows", "d": "features", "K": "classes"}[grown])
        pane.set_ylabel("seconds")
        pane.legend()
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "growth.png", dpi=80)
    report.pictures["How the time of one epoch grows"] = "growth.png"

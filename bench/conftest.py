"""The only place for what all benchmarks share: the problem they time and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest


@dataclass(frozen=True)
class Problem:
    """Rows X (n, d) float32 with classes y (n,), and the loss of knowing only how often each is."""

    X: np.ndarray
    y: np.ndarray
    prior_loss: float


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick: a tenth of the rows, for a look rather than a measurement."""
    parser.addoption("--quick", action="store_true", help="time a tenth of the rows")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what a user asks: rows a second (median round), and the loss they led to."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for timed in session.benchmarks if session else ():
        facts = timed.extra_info
        if "rows" in facts:
            speed = facts["rows"] / timed.stats.median
            line = f"{timed.name:<40} {speed:>12,.0f} rows/s   log-loss {facts['log_loss']:.4f}"
            terminalreporter.write_line(line)


def draw_problem(n: int, d: int, K: int, seed: int = 0) -> Problem:
    """Return rows whose classes are drawn from a softmax with random weights."""
    random = np.random.default_rng(seed)
    X = random.random((n, d), dtype=np.float32) - np.float32(0.5)
    z = X @ random.normal(0, 0.5, (d, K)).astype(np.float32)
    # The largest of z plus Gumbel noise has the distribution softmax(z).
    y = (z + random.gumbel(size=z.shape)).argmax(axis=1)
    shares = np.bincount(y, minlength=K) / n
    return Problem(X, y, float(-(shares * np.log(shares)).sum()))


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Problem:
    """The shape of Fashion-MNIST: 60,000 x 784 in 10 classes."""
    return draw_problem(6_000 if request.config.getoption("--quick") else 60_000, 784, 10)

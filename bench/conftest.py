"""The only place for what all benchmarks share: problems, the machine's limits, and RESULTS.md."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import machine

FIRST = "From the shell: seconds to the saved model"  # what users feel
HEAD = """# Results of `make bench`

Each table says when and where it was measured, and how many float32 multiply-adds a core did then:
the machine is shared. Cases of a table took turns within one run; medians. A share of the peak
counts the useful 4 K d flops a row and everything else as time.
"""


@dataclass(frozen=True)
class Problem:
    """Rows X (n, d) float32 with classes y (n,), and the loss of knowing only how often each is."""

    X: np.ndarray
    y: np.ndarray
    prior_loss: float


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick: a tenth of the rows, for a look rather than a measurement; and --rows."""
    parser.addoption("--quick", action="store_true", help="time a tenth of the rows")
    parser.addoption("--rows", type=int, help="texts that are trained on beside peers")


class Report:
    """Tables that grow while the benchmarks run, and become bench/RESULTS.md."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.pictures: dict[str, str] = {}  # title to file

    def add(self, title: str, **row: Any) -> None:
        """Add a row to the table of this title."""
        self.tables.setdefault(title, []).append(row)

    def sections(self, stamp: str) -> dict[str, str]:
        """Return each table under its title; stamp: when and where it was measured."""
        found = {}
        for title, rows in self.tables.items():
            lines = [stamp, "", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
            lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
            if title in self.pictures:
                lines += ["", f"![{title}]({self.pictures[title]})"]
            found[title] = "\n".join(lines)
        return found


def sections_of(text: str) -> dict[str, str]:
    """Return the sections of a Markdown file by their titles."""
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether a look is wanted rather than a measurement."""
    return request.config.getoption("--quick")


@pytest.fixture(scope="session")
def limits() -> machine.Limits:
    """What this machine can do, measured in this run."""
    return machine.limits()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest, limits: machine.Limits, quick: bool) -> Any:
    """The tables of this run; a full one ends by putting them into bench/RESULTS.md."""
    tables = Report()
    yield tables
    where = Path(__file__).parent / "RESULTS.md"
    if quick:
        where = Path(request.config.rootpath) / "demo-out" / "RESULTS-quick.md"
        where.parent.mkdir(exist_ok=True)
    known = sections_of(where.read_text()) if where.exists() and not quick else {}
    peak = limits.flops["float32"] / 1e9
    stamp = f"{datetime.date.today():%Y-%m-%d}, {machine.fingerprint()}; {peak:.0f} GFLOP/s a core."
    known |= {"Limits of the machine": f"{stamp}\n\n{machine.table(limits)}"}
    known |= tables.sections(stamp)
    known = {title: known[title] for title in sorted(known, key=lambda title: title != FIRST)}
    where.write_text(HEAD + "".join(f"\n## {title}\n\n{text}\n" for title, text in known.items()))


def draw_problem(n: int, d: int, K: int, seed: int = 0) -> Problem:
    """Return rows whose classes are drawn from a softmax with random weights."""
    random = np.random.default_rng(seed)
    X = random.random((n, d), dtype=np.float32) - np.float32(0.5)
    z = X @ random.normal(0, 0.5, (d, K)).astype(np.float32)
    # The largest of z plus Gumbel noise has the distribution softmax(z).
    y = (z + random.gumbel(size=z.shape)).argmax(axis=1)
    shares = np.bincount(y, minlength=K) / n
    return Problem(X, y, float(-(shares * np.log(shares)).sum()))

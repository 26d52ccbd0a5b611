"""Text to classes beside other trainers: how good at their best settings, how long, and how fast.

All get the same words of the same rows: descriptions of packages where they are at hand (`make
demo-text` makes them), or drawn ones. The settings of a peer are those of the lowest log-loss on
rows that are put aside; it is then trained on all. Seconds are of processors, its own and of what
it starts, one thread each. Peers that are not installed are left out, in a sentence.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from bench.bench_peers import log_loss
from fastsoftmax.data.parts import Sparse
from fastsoftmax.data.text import NgramCount, TextEncoder
from fastsoftmax.data.vocabulary import Recipe
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions

sparse = pytest.importorskip("scipy.sparse")

DESCRIPTIONS = Path(__file__).parent.parent / "demo-out" / "descriptions"
ROWS, QUICK_ROWS, TESTED, CLASSES = 8_000, 1_500, 4_000, 58
EPOCHS = 5  # of which the mean is one's speed
WANTED = {"SGDClassifier": 15, "Vowpal Wabbit": 40, "fastText": 10}  # times as fast we want to be
RECIPE = Recipe((1, 1))
Proba = Callable[["Rows"], np.ndarray]
Fit = Callable[..., Proba]


class Rows(NamedTuple):
    """Texts, their words as a CSR matrix, and their classes."""

    texts: list[str]
    X: Any
    y: np.ndarray

    def some(self, rows: np.ndarray | slice) -> Rows:
        """Return some of the rows."""
        texts = np.array(self.texts, object)[rows].tolist()
        return Rows(texts, self.X[rows], self.y[rows])


def draw_texts(n: int) -> tuple[list[str], np.ndarray]:
    """Return texts of classes that prefer some words, drawn as often as ranks in a language are."""
    rng = np.random.default_rng(0)
    words = np.array(["w" + np.base_repr(j, 36).lower() for j in range(30_000)])
    y = rng.integers(0, CLASSES, n)
    ranks = np.minimum(rng.zipf(1.2, (n, 45)), len(words)) - 1
    own = (ranks * 7919 + 104_729 * y[:, None]) % len(words)
    ranks = np.where(rng.random(ranks.shape) < 0.15, own, ranks)
    return [" ".join(row) for row in words[ranks]], y


def read_texts(n: int) -> tuple[list[str], np.ndarray]:
    """Return descriptions and the numbers of their sections, those that 20 rows have; or drawn."""
    if not DESCRIPTIONS.exists():
        return draw_texts(n)
    table = pa.concat_tables(
        pq.read_table(DESCRIPTIONS / f"descriptions-{name}.parquet") for name in ("train", "test")
    )
    table = table.take(np.random.default_rng(0).permutation(len(table))[:n])
    _, y, counts = np.unique(table["section"].to_pylist(), return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts[y] >= 20)
    pairs = zip(table["title"].to_pylist(), table["body"].to_pylist(), strict=True)
    texts = [f"{title} {body}" for title, body in pairs]
    return [texts[row] for row in kept], np.unique(y[kept], return_inverse=True)[1]


def load_rows(n: int) -> tuple[Rows, Rows]:
    """Return rows to learn from, and others to be judged by: words that two of the first have."""
    texts, y = read_texts(n + TESTED)
    count = NgramCount(RECIPE, 2**22)
    count.add(pa.array(texts[:n]), np.ones(n, np.bool_), "the text", str)
    part = TextEncoder(count.vocabulary(2, 2**20))(pa.array(texts), "the text", str)
    shape = (len(texts), part.width)
    X = sparse.csr_matrix((part.value, part.arrays[1], part.indptr), shape)
    X.sort_indices()
    rows = Rows(texts, X, y.astype(np.int32))
    return rows.some(slice(0, n)), rows.some(slice(n, None))


def seconds() -> float:
    """Return what processors have spent on this process and on those that it waited for."""
    return sum(os.times()[:4])


# Own and peers: each returns what gives probabilities.


def by_default(rows: Rows) -> Proba:
    """fastsoftmax without options but which words: from texts to the model."""
    table = pa.table({"text": rows.texts, "y": rows.y})
    model = fastsoftmax.train(table, "y", text=["text"], ngrams="1", threads=1)
    return lambda asked: model.predict_proba(pa.table({"text": asked.texts}))


def by_sgd(rows: Rows, alpha: float, rate: str, epochs: int = 15) -> Proba:
    """SGDClassifier, averaged: one classifier against the rest for each class."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss", alpha=alpha, learning_rate=rate, eta0=0.5, max_iter=epochs, tol=None,
        average=True, random_state=0,
    )  # fmt: skip
    model.fit(rows.X, rows.y)
    return lambda asked: model.predict_proba(asked.X)


def by_logistic_regression(rows: Rows, C: float) -> Proba:
    """LogisticRegression: full gradients of the softmax."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, max_iter=100).fit(rows.X, rows.y)
    return lambda asked: model.predict_proba(asked.X)


def by_liblinear(rows: Rows, C: float) -> Proba:
    """LIBLINEAR: one classifier against the rest for each class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    model = OneVsRestClassifier(LogisticRegression(C=C, solver="liblinear"))
    model.fit(rows.X, rows.y)
    return lambda asked: model.predict_proba(asked.X)


def vw_lines(rows: Rows) -> Iterator[str]:
    """Yield rows as Vowpal Wabbit takes them."""
    for row, label in enumerate(rows.y):
        here = slice(rows.X.indptr[row], rows.X.indptr[row + 1])
        pairs = zip(rows.X.indices[here], rows.X.data[here], strict=True)
        yield f"{label + 1} | " + " ".join(f"{j}:{x:.6g}" for j, x in pairs)


def by_vowpal_wabbit(rows: Rows, rate: float, passes: int) -> Proba:
    """Vowpal Wabbit: one against all, from its cache, which is written by the first pass."""
    import vowpalwabbit

    K = int(rows.y.max()) + 1
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "rows.txt"
        text.write_text("\n".join(vw_lines(rows)) + "\n")
        model = vowpalwabbit.Workspace(
            f"--oaa {K} --loss_function logistic --probabilities -b 22 -l {rate} --holdout_off"
            f" --passes {passes} -d {text} --cache_file {folder}/cache --quiet"
        )

    def proba(asked: Rows) -> np.ndarray:
        told = (line.split(" ", 1)[1] for line in vw_lines(asked))
        return np.array([model.predict(line) for line in told])

    return proba


def write_for_fasttext(path: Path, rows: Rows) -> None:
    """Write rows as fastText takes them: each word as often as the row has it."""
    lines = []
    for row, label in enumerate(rows.y):
        here = slice(rows.X.indptr[row], rows.X.indptr[row + 1])
        counts = np.rint(rows.X.data[here] / rows.X.data[here].min(initial=1)).astype(int)
        words = (f"w{j}" for j in np.repeat(rows.X.indices[here], counts))
        lines.append(f"__label__{label} {' '.join(words)}\n")
    path.write_text("".join(lines))


def by_fasttext(rows: Rows, rate: float, epochs: int, size: int = 50) -> Proba:
    """fastText: softmax over the mean of vectors of words, one thread."""
    K = int(rows.y.max()) + 1
    folder = Path(tempfile.mkdtemp())
    write_for_fasttext(folder / "rows.txt", rows)
    subprocess.run(
        ["fasttext", "supervised", "-input", folder / "rows.txt", "-output", folder / "model",
         "-lr", str(rate), "-epoch", str(epochs), "-dim", str(size), "-thread", "1",
         "-minCount", "1", "-loss", "softmax", "-verbose", "0"],
        check=True, capture_output=True,
    )  # fmt: skip

    def proba(asked: Rows) -> np.ndarray:
        write_for_fasttext(folder / "asked.txt", asked)
        told = subprocess.run(
            ["fasttext", "predict-prob", folder / "model.bin", folder / "asked.txt", str(K)],
            check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip
        found = np.zeros((len(told), K))
        for row, line in enumerate(told):
            parts = line.split()
            labels = [int(each.removeprefix("__label__")) for each in parts[::2]]
            found[row, labels] = np.array(parts[1::2], float)
        return found / found.sum(axis=1, keepdims=True)

    return proba


# How each is trained, its grid, and the module or program that it needs.
PEERS: dict[str, tuple[Fit, list[dict[str, Any]], str]] = {
    "SGDClassifier": (
        by_sgd,
        [
            {"alpha": alpha, "rate": rate}
            for alpha, rate in product((1e-6, 3e-6, 1e-5, 3e-5), ("optimal", "adaptive"))
        ],
        "sklearn",
    ),
    "LogisticRegression": (
        by_logistic_regression, [{"C": C} for C in (3, 10, 30, 100, 300)], "sklearn",
    ),
    "LIBLINEAR": (by_liblinear, [{"C": C} for C in (10, 30, 100, 300)], "sklearn"),
    "Vowpal Wabbit": (
        by_vowpal_wabbit,
        [{"rate": rate, "passes": n} for rate, n in product((0.3, 1.0, 3.0), (3, 10))],
        "vowpalwabbit",
    ),
    "fastText": (
        by_fasttext,
        [{"rate": rate, "epochs": n} for rate, n in product((0.3, 1.0, 2.0), (15, 40))],
        "fasttext",
    ),
}  # fmt: skip


def is_here(needed: str) -> bool:
    """Return whether a module or a program is installed."""
    return importlib.util.find_spec(needed) is not None or shutil.which(needed) is not None


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, quick: bool) -> tuple[Rows, Rows]:
    """Rows to learn from, and rows to be judged by."""
    set_ours = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & os.environ.keys()
    assert not set_ours, f"unset {' and '.join(sorted(set_ours))}: peers would use a slower BLAS"
    asked = request.config.getoption("--rows")
    return load_rows(asked or (QUICK_ROWS if quick else ROWS))


def best_of(fit: Fit, grid: list[dict[str, Any]], rows: Rows) -> tuple[dict[str, Any], float]:
    """Return the settings that are best on a fifth of the rows, and the seconds of the search."""
    started, losses = seconds(), []
    aside = np.random.default_rng(1).random(len(rows.y)) < 0.2
    # A class that the others lack has no probability; nobody can know of it.
    aside &= np.bincount(rows.y)[rows.y] > 5
    for settings in grid:
        held = rows.some(aside)
        losses.append(log_loss(fit(rows.some(~aside), **settings)(held), held.y))
    return grid[int(np.argmin(losses))], seconds() - started


def bench_text_peers(benchmark, report, quick, rows) -> None:
    """Find each peer's best settings, and judge what it then learns of all rows."""
    learnt, judged = rows
    title = f"Texts: {len(learnt.y):,} in {learnt.y.max() + 1} classes, words, one thread"
    peers = {"fastsoftmax, no options": (by_default, [{}], "numpy"), **PEERS}
    by_default(learnt.some(slice(0, 500)))  # kernels are there
    warnings.simplefilter("ignore")  # that peers have not converged
    for name, (fit, grid, needed) in peers.items():
        if not is_here(needed):
            print(f"{needed} is not installed, so that {name} is left out.")  # noqa: T201
            continue
        grid = grid[::3] if quick else grid
        best, searched = best_of(fit, grid, learnt) if len(grid) > 1 else (grid[0], 0.0)
        started = seconds()
        proba = fit(learnt, **best)
        taken = seconds() - started
        found = proba(judged)
        report.add(
            title,
            trainer=name,
            settings=", ".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
                               for key, value in best.items()) or "-",
            **{
                "seconds": f"{taken:.2f}",
                "with the search": f"{taken + searched:.2f}",
                "test log-loss": f"{log_loss(found, judged.y):.4f}",
                "accuracy": f"{(found.argmax(axis=1) == judged.y).mean():.2%}",
            },
        )  # fmt: skip
    benchmark.pedantic(lambda: None)


def own_epochs(rows: Rows, epochs: int, *, averaged: bool) -> None:
    """Take the steps of some epochs over rows that are decoded."""
    X, n = rows.X, len(rows.y)
    part = Sparse(X.indptr.astype(np.int64), X.indices.astype(np.int32), X.data, X.shape[1])
    options = TrainOptions.of(average=averaged, threads=1)
    with SGD(int(rows.y.max()) + 1, X.shape[1], options, X.nnz / n) as sgd:
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(n)
            for start in range(0, n, sgd.call_rows):
                at = order[start : start + sgd.call_rows]
                one = np.ones(len(at))
                sgd.step((part,), at, rows.y[at], one, 0.3 * one, ends=True)


def bench_text_epochs(benchmark, report, quick, rows) -> None:
    """Time epochs of steps: what some take longer than one, so that nothing else counts."""
    learnt, _ = rows
    runs: dict[str, tuple[Callable[[int], object], str]] = {
        "fastsoftmax": (lambda n: own_epochs(learnt, n, averaged=False), "numpy"),
        "fastsoftmax, averaged": (lambda n: own_epochs(learnt, n, averaged=True), "numpy"),
        "SGDClassifier": (lambda n: by_sgd_once(learnt, n), "sklearn"),
        "Vowpal Wabbit": (lambda n: by_vowpal_wabbit(learnt, 1.0, n), "vowpalwabbit"),
        "fastText": (lambda n: by_fasttext(learnt, 0.3, n, size=10), "fasttext"),
        "fastText, 100 numbers a word": (lambda n: by_fasttext(learnt, 0.3, n, 100), "fasttext"),
    }
    runs = {name: run for name, run in runs.items() if is_here(run[1])}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 if quick else 3):
        for name, (run, _) in runs.items():
            more = 20 * EPOCHS if name.startswith("fastsoftmax") else EPOCHS
            spent = []
            for epochs in (1, 1 + more):
                started = time.process_time() if name[:8] != "fastText" else seconds()
                run(epochs)
                ended = time.process_time() if name[:8] != "fastText" else seconds()
                spent.append(ended - started)
            taken[name].append((spent[1] - spent[0]) / more)
    ours = float(np.median(taken["fastsoftmax"]))
    for name, each in taken.items():
        wanted = WANTED.get(name)
        report.add(
            f"Texts: epochs over {len(learnt.y):,} rows of {learnt.X.nnz / len(learnt.y):.0f}"
            f" words in {learnt.y.max() + 1} classes, one thread",
            trainer=name,
            **{
                "rows/s": f"{len(learnt.y) / np.median(each):,.0f}",
                "fastsoftmax is faster by": f"{np.median(each) / ours:.1f}",
                "wanted": "-" if wanted is None else f"{wanted}",
            },
        )
    benchmark.pedantic(lambda: None)


def by_sgd_once(rows: Rows, epochs: int) -> None:
    """Take epochs of SGDClassifier's steps, without averages."""
    from sklearn.linear_model import SGDClassifier

    SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=epochs, tol=None).fit(rows.X, rows.y)

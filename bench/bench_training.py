"""How many rows a second training takes, in memory, with one thread, beside its peers.

Each benchmark trains once before it is timed: that pays for compilation, and its loss is checked,
so that nothing is timed which does not learn.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastsoftmax


def time_epoch(benchmark, problem, train, loss_of) -> None:
    """Check that one epoch of `train` learns, then time it and report rows a second."""
    loss = loss_of(train())
    assert loss < problem.prior_loss, f"the loss {loss} is no better than the classes' shares"
    benchmark(train)
    benchmark.extra_info["log_loss"] = loss
    benchmark.extra_info["rows"] = len(problem.y)


@pytest.mark.benchmark(group="an epoch of 784 features, 10 classes")
@pytest.mark.parametrize(("batch_size", "longer"), [(1, 1), (64, 32)])
def bench_fastsoftmax(benchmark, images, batch_size, longer) -> None:
    """One pass, everything counted: label scan, shuffle, training. Means bear longer steps."""
    rate = longer / (1 + np.square(images.X).sum(axis=1).mean())

    def train():
        return fastsoftmax.train(
            images.X,
            images.y,
            epochs=1,
            threads=1,
            batch_size=batch_size,
            learning_rate=rate,
        )

    time_epoch(benchmark, images, train, lambda model: model.history[-1]["log_loss"])


@pytest.mark.benchmark(group="an epoch of 784 features, 10 classes")
def bench_scikit_learn_one_vs_all(benchmark, images) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rate = 1 / (1 + np.square(images.X).sum(axis=1).mean())

    def train():
        return linear_model.SGDClassifier(
            loss="log_loss",
            alpha=0,
            learning_rate="constant",
            eta0=rate,
            max_iter=1,
            tol=None,
            random_state=0,
        ).fit(images.X, images.y)

    def loss_of(peer):
        metrics = pytest.importorskip("sklearn.metrics")
        return metrics.log_loss(images.y, peer.predict_proba(images.X))

    time_epoch(benchmark, images, train, loss_of)

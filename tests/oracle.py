"""The mathematics in plain NumPy, slow and obvious: what every kernel is checked against.

Everything is float64. Rows of weight 0 take no step and are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class State:
    """Weights, the running sums of them after each step, and the facts of the rows seen."""

    W: np.ndarray
    b: np.ndarray
    W_sum: np.ndarray = field(init=False)
    b_sum: np.ndarray = field(init=False)
    steps: int = 0
    loss: float = 0.0
    hits: float = 0.0

    def __post_init__(self) -> None:
        self.W_sum, self.b_sum = np.zeros_like(self.W), np.zeros_like(self.b)

    def count_step(self) -> None:
        self.W_sum += self.W
        self.b_sum += self.b
        self.steps += 1


def zeros(K: int, d: int) -> State:
    return State(np.zeros((K, d)), np.zeros(K))


def log_softmax(Z: np.ndarray) -> np.ndarray:
    shifted = Z - Z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(Z: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(Z))


def losses(W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -log_softmax(X @ W.T + b)[np.arange(len(y)), y]


def objective(
    W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float
) -> float:
    return float(w @ losses(W, b, X, y) / w.sum() + l2 / 2 * (W**2).sum())


def gradient(
    W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    g = softmax(X @ W.T + b)
    g[np.arange(len(y)), y] -= 1
    g *= w[:, None] / w.sum()
    return g.T @ X + l2 * W, g.sum(axis=0)


def implicit_gradient(a: np.ndarray, y: int, s: float) -> np.ndarray:
    """Return g at the z where z = a - s g(z): by small steps towards it."""
    z = a.copy()
    for _ in range(10000):
        g = softmax(z)
        g[y] = -np.delete(g, y).sum()
        step = (a - s * g - z) / (1 + s / 2)
        z += step
        if abs(step).max() < 1e-16 * (1 + abs(z).max()):
            break
    return g


def descend(
    state: State,
    X: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    eta: np.ndarray,
    l2: float = 0.0,
    fit_intercept: bool = True,
    bound: str = "off",
) -> State:
    """Per-sample SGD, row after row; bound: off, cap or implicit."""
    X = X.astype(np.float64)
    for t in np.flatnonzero(w > 0):
        norm = fit_intercept + X[t] @ X[t]
        step = min(eta[t] * w[t], {"off": np.inf, "cap": 1.0, "implicit": 1e6}[bound] / norm)
        z = state.W @ X[t] + state.b
        state.loss += w[t] * -log_softmax(z)[y[t]]
        state.hits += w[t] * (z.argmax() == y[t])
        g = softmax(z)
        g[y[t]] -= 1
        keep = max(0.0, 1 - step * l2)
        if bound == "implicit":
            g = implicit_gradient(keep * (z - state.b) + state.b, y[t], step * norm)
        state.W *= keep
        state.W -= step * np.outer(g, X[t])
        state.b -= fit_intercept * step * g
        state.count_step()
    return state


def descend_penalised(
    state: State,
    X: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    eta: np.ndarray,
    l2: np.ndarray,
    l1: np.ndarray,
    shrink: float = 0.0,
) -> State:
    """Per-sample SGD; all weights pay the penalties (d,) of their features after each row's step.

    shrink: an l2 that acts with the step itself, as in `descend`. The mean is of weights that paid.
    """
    for t in np.flatnonzero(w > 0):
        descend(state, X[t : t + 1], y[t : t + 1], w[t : t + 1], eta[t : t + 1], shrink)
        W = state.W
        state.W = penalised(W, eta[t] * w[t], l2, l1)
        state.W_sum += state.W - W
    return state


def penalised(W: np.ndarray, step: float, l2: np.ndarray, l1: np.ndarray) -> np.ndarray:
    """Return weights after the penalties (d,) of their features acted for steps of so much."""
    lost = -np.expm1(-l2 * step)
    due = l1 * np.where(l2 > 0, lost / np.where(l2 > 0, l2, 1.0), step)
    return np.sign(W) * np.maximum(np.abs(W) * (1 - lost) - due, 0.0)


def descend_by_feature(
    state: State,
    X: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    eta: np.ndarray,
    l2: np.ndarray,
    l1: np.ndarray,
) -> State:
    """AdaGrad with one number a feature, and penalties (d,) that act by its step sizes."""
    G, of_b = np.zeros(X.shape[1]), 0.0
    for t in np.flatnonzero(w > 0):
        z = state.W @ X[t] + state.b
        state.loss += w[t] * -log_softmax(z)[y[t]]
        g = softmax(z)
        g[y[t]] -= 1
        g *= w[t]
        G, of_b = G + g @ g * X[t] ** 2, of_b + g @ g
        share = np.divide(1.0, np.sqrt(G), out=np.zeros_like(G), where=G > 0)
        state.W -= eta[t] * share * np.outer(g, X[t])
        state.b -= eta[t] * g / np.sqrt(of_b)
        state.W = penalised(state.W, eta[t] * w[t], share * l2, share * l1)
        state.count_step()
    return state


def descend_batches(
    state: State,
    X: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    eta: np.ndarray,
    batch_size: int,
    l2: float = 0.0,
    fit_intercept: bool = True,
    own: tuple[np.ndarray, np.ndarray] | None = None,
) -> State:
    """Mini-batch SGD: one step with the mean of w (p - onehot(y)) x' over each batch.

    own: penalties l2 and l1 (d,) of features, which act after each step.
    """
    X = X.astype(np.float64)
    counted = np.flatnonzero(w > 0)
    for start in range(0, len(counted), batch_size):
        rows = counted[start : start + batch_size]
        Z = X[rows] @ state.W.T + state.b
        state.loss += w[rows] @ -log_softmax(Z)[np.arange(len(rows)), y[rows]]
        state.hits += w[rows] @ (Z.argmax(axis=1) == y[rows])
        g = softmax(Z)
        g[np.arange(len(rows)), y[rows]] -= 1
        g *= w[rows][:, None]
        state.W *= max(0.0, 1 - eta[rows[0]] * w[rows].mean() * l2)
        state.W -= eta[rows[0]] * g.T @ X[rows] / len(rows)
        state.b -= fit_intercept * eta[rows[0]] * g.sum(axis=0) / len(rows)
        if own is not None:
            state.W = penalised(state.W, eta[rows[0]] * w[rows].mean(), *own)
        state.count_step()
    return state


def problem(
    K: int, d: int, n: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return features, classes, weights (a few of them 0) and falling step sizes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = rng.integers(0, K, n).astype(np.int32)
    w = rng.random(n) * 2
    w[::7] = 0.0
    return X, y, w, np.linspace(1.0, 0.1, n) / (1 + d)

"""Learn a posterior that is known exactly, measure the largest error, and draw both.

    python examples/three_gaussians.py [IMAGE.png]

Class a = 1, 2, 3 draws its one feature x from N(2a, 1), and the three are equally likely. Then

    log p(x | a) = -(x - 2a)^2 / 2 + const = 2a x - 2a^2 + (terms without a)

so the posterior p(a | x) is a softmax with weights 2a and biases -2a^2: weight differences
W_a - W_1 = 2 (a - 1), bias differences b_a - b_1 = -2 (a^2 - 1).
"""

import sys
from pathlib import Path

import numpy as np

import fastsoftmax
from fastsoftmax.errors import MissingExtraError

CLASSES = np.array([1, 2, 3])
ROWS = 1_000_000
GRID = np.linspace(0.0, 10.0, 1001)
OPTIONS = {
    "epochs": 10,
    "batch_size": 1,
    "learning_rate": 0.01,
    "schedule": "linear",
    "average": False,
    "l2": 0.0,
    "fit_intercept": True,
    "seed": 0,
    "dtype": "float32",
}


def draw_rows(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (rows, 1) and classes (rows,) of a sample."""
    random = np.random.default_rng(seed)
    a = random.choice(CLASSES, rows)
    return random.normal(2.0 * a, 1.0)[:, None], a


def true_probabilities(x: np.ndarray) -> np.ndarray:
    """Return p(a | x) at the points x (n,) as (n, 3): softmax(2a x - 2a^2)."""
    z = 2.0 * CLASSES * x[:, None] - 2.0 * CLASSES**2
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def learn(rows: int = ROWS) -> fastsoftmax.Model:
    """Train on a sample with every option that shapes the model written down."""
    features, classes = draw_rows(rows)
    return fastsoftmax.train(features, classes, **OPTIONS)


def largest_deviation(model: fastsoftmax.Model) -> float:
    """Return the largest error of a learned probability on [0, 10]."""
    return float(np.abs(model.predict_proba(GRID[:, None]) - true_probabilities(GRID)).max())


def draw_curves(model: fastsoftmax.Model, path: Path) -> None:
    """Draw the learned probabilities over the true ones."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError(
            "drawing needs matplotlib: pip install 'fastsoftmax[plot]'"
        ) from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="x", ylabel="p(a | x)", title="Three Gaussian classes")
    learned = model.predict_proba(GRID[:, None])
    for a, true, curve in zip(CLASSES, true_probabilities(GRID).T, learned.T, strict=True):
        (line,) = axes.plot(GRID, curve, label=f"a = {a}, learned")
        axes.plot(GRID[::40], true[::40], "o", color=line.get_color(), label=f"a = {a}, true")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(path: Path) -> None:
    """Learn, say how far off the result is, and draw it."""
    model = learn()
    differences = (model.coef - model.coef[0]).ravel()
    print(f"weight differences {np.round(differences, 3)}, true ones {2 * (CLASSES - 1)}")
    print(f"largest error of a probability on [0, 10]: {largest_deviation(model):.4f}")
    draw_curves(model, path)
    print(f"drawn: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "three_gaussians.png"))

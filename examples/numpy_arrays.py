"""Train on NumPy arrays: string labels, sample weights, held-out rows, save and load.

python examples/numpy_arrays.py [MODEL.safetensors]
"""

import sys

import numpy as np

import fastsoftmax


def draw_flowers(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return made-up measurements (rows, 2) of three kinds of flowers, and their names (rows,)."""
    random = np.random.default_rng(seed)
    names = np.array(["daisy", "poppy", "tulip"])
    centres = np.array([[1.0, 4.0], [3.0, 1.0], [4.0, 5.0]])
    kind = random.integers(3, size=rows)
    return random.normal(centres[kind], 1.0), names[kind]


def main(path: str) -> None:
    """Train, evaluate on fresh rows, save, load, predict."""
    X, y = draw_flowers(20_000, seed=1)
    # Poppies count twice: the same as if each poppy stood in the data twice.
    weight = np.where(y == "poppy", 2.0, 1.0)
    model = fastsoftmax.train(X, y, weight=weight, holdout=0.1, epochs=3)
    for line in model.history:
        print(f"epoch {line['epoch']}: held-out log-loss {line['validation_log_loss']:.4f}")

    fresh, true = draw_flowers(5_000, seed=2)
    print(fastsoftmax.evaluate(model, fresh, true))

    model.save(path)
    same = fastsoftmax.load(path)
    print(f"classes: {', '.join(same.classes)}")
    print(f"a flower of 1.2 x 3.9 is a {same.predict(np.array([[1.2, 3.9]]))[0]}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "flowers.safetensors")

"""Train on a polars DataFrame, which hands its columns over as an Arrow stream.

python examples/from_polars.py
"""

import sys
from pathlib import Path

import fastsoftmax

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Train on some columns of a frame, then put the predictions beside the true classes."""
    try:
        import polars as pl
    except ImportError:
        sys.exit("this example needs polars: pip install polars")

    def frame(name: str) -> pl.DataFrame:
        """Read digits, and add how much ink each image holds, a second feature column."""
        ink = pl.col("pixels").arr.sum().alias("ink")
        return pl.read_parquet(DATA / f"digits-{name}.parquet").with_columns(ink)

    # `ink` is large beside the pixels: leave it out by naming the features.
    model = fastsoftmax.train(frame("train"), "digit", features=["pixels"])
    test = frame("test")
    guessed = test.with_columns(prediction=pl.Series(model.predict(test)))
    wrong = guessed.filter(pl.col("prediction") != pl.col("digit"))
    print(fastsoftmax.evaluate(model, test))
    print(f"{wrong.height} of {test.height} digits are taken for another one:")
    print(wrong.group_by("digit", "prediction").len().sort("len", descending=True).head(5))


if __name__ == "__main__":
    main()

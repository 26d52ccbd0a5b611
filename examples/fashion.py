"""Make two Parquet files of Fashion-MNIST from Debian's package `dataset-fashion-mnist`.

    python examples/fashion.py FOLDER

Needs apt, but neither root nor an installation: the package is downloaded and unpacked in FOLDER.
"""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE = "dataset-fashion-mnist"
ROW_GROUP = 10_000
PIXELS = pa.list_(pa.field("item", pa.uint8(), nullable=False), 28 * 28)
SCHEMA = pa.schema(
    [pa.field("pixels", PIXELS, nullable=False), pa.field("label", pa.uint8(), nullable=False)]
)


def unpack_package(folder: Path) -> None:
    """Download the package into `folder` and unpack it there, or leave with one sentence."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        fail(2, f"apt is not here, and {PACKAGE} is a Debian package; use make demo instead.")
    if not _download(folder):
        is_root = os.geteuid() == 0
        if not (is_root and _quiet(["apt-get", "update"], folder) and _download(folder)):
            advice = "is there a network?" if is_root else "run apt-get update as root, then again."
            fail(1, f"apt-get could not download {PACKAGE}: {advice}")
    archive = next(folder.glob(f"{PACKAGE}_*.deb")).name
    if not _quiet(["dpkg-deb", "-x", archive, "partial"], folder):
        fail(1, f"dpkg-deb could not unpack {folder / archive}: delete it, then run this again.")
    (folder / "partial").rename(folder / "package")


def read_idx(path: Path) -> np.ndarray:
    """Return the array in a gzipped IDX file: two zeros, type, rank, big-endian sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_parquet(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Write images (n, 28, 28) and labels (n,), with checksums, under a name that is whole."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), type=PIXELS)
    table = pa.Table.from_arrays([lists, pa.array(labels)], schema=SCHEMA)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, row_group_size=ROW_GROUP, write_page_checksum=True)
    partial.replace(path)
    print(f"{path}: {table.num_rows} images of 28 x 28 pixels")


def fail(code: int, sentence: str) -> None:
    """Say why there are no data, and leave."""
    print(f"fashion.py: {sentence}", file=sys.stderr)
    sys.exit(code)


def _download(folder: Path) -> bool:
    return _quiet(["apt-get", "download", PACKAGE], folder)


def _quiet(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def main(folder: Path) -> None:
    """Write the files that are not there yet."""
    cache = folder / "debian"
    package = cache / "package"
    cache.mkdir(parents=True, exist_ok=True)
    for name, prefix in (("train", "train"), ("test", "t10k")):
        path = folder / f"fashion-{name}.parquet"
        if path.exists():
            continue
        if not package.exists():
            unpack_package(cache)
        images, labels = (
            read_idx(next(package.rglob(f"{prefix}-{kind}-ubyte.gz")))
            for kind in ("images-idx3", "labels-idx1")
        )
        write_parquet(images, labels, path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/fashion.py FOLDER")
    main(Path(sys.argv[1]))

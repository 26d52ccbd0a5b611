"""Damaged Parquet files: each run on one ends well, or in one clear sentence and exit code 3.

`python -m tests.fuzz_parquet [COUNT [NUMBER ...]]` makes COUNT of them (500 unless said): bytes
flipped, files cut short, pieces put in other places, from small files with page checksums and
without. Each, or those of the numbers given, is trained on in a process of its own. Where there are
checksums, what ends well must give the model of the whole file.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastsoftmax.cli.main import main
from tests.tables import feature_columns, matrix

SECONDS, MEMORY = 30, 4 * 2**30  # that a run may take
ROWS, WIDTH = 300, 5
LAYOUTS = ("scalars", "list", "fixed", "mixed")


def write_bases(folder: Path) -> list[tuple[Path, bool]]:
    """Write the files that are damaged then; return each, and whether its pages have checksums."""
    bases = []
    X = matrix("float32", ROWS, WIDTH) / 100
    text = pa.array([f"name {i % 7}" for i in range(ROWS)])
    for layout in LAYOUTS:
        rows = pa.table({**feature_columns(X, layout), "y": np.arange(ROWS) % 3, "name": text})
        for checked in (True, False):
            for compression in ("none", "zstd"):
                path = folder / f"{layout}-{checked}-{compression}.parquet"
                pq.write_table(
                    rows, path, row_group_size=90, compression=compression,
                    write_page_checksum=checked,
                )  # fmt: skip
                bases.append((path, checked))
    return bases


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file's bytes with something wrong in them."""
    changed = bytearray(content)
    kind = rng.integers(4)
    if kind == 0:  # a few flipped bits
        for at in rng.integers(0, len(changed), rng.integers(1, 5)):
            changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut short
        del changed[int(rng.integers(len(changed))) :]
    elif kind == 2:  # a piece of it put in another place
        size = int(rng.integers(1, 200))
        start, to = (int(at) for at in rng.integers(0, max(len(changed) - size, 1), 2))
        changed[to : to + size] = content[start : start + size]
    else:  # a piece of it missing, or noise
        size, at = int(rng.integers(1, 100)), int(rng.integers(len(changed)))
        noise = rng.integers(0, 256, size).astype(np.uint8).tobytes()
        changed[at : at + size] = noise if rng.integers(2) else b""
    return bytes(changed)


def train(path: Path, model: Path, told: Path) -> int:
    """Train on a file in a process of its own; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        with told.open("w") as file:
            os.dup2(file.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(SECONDS)
        command = ["train", str(path), "--target", "y", "-o", str(model), "--epochs", "1"]
        columns = [name for name in ("x*", "v") if name != "v" or "scalars" not in path.stem]
        columns = [name for name in columns if name != "x*" or path.stem.startswith(("sc", "mi"))]
        code = 1
        try:
            code = main([*command, "--features", ",".join(columns), "--threads", "1", "--quiet"])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def complaint(code: int, told: str, good: bool, checked: bool) -> str | None:
    """Return what is wrong with how a run ended, or None."""
    if code == 0:
        return "a wrong number, checksums or not" if checked and not good else None
    if code != 3:
        return f"exit code {code}"
    lines = told.splitlines()
    if len(lines) != 1 or not re.match(r"fastsoftmax: .*\.$", lines[0]):
        return f"{len(lines)} lines"
    return None


def run(count: int, numbers: set[int], seed: int = 0) -> list[str]:
    """Damage `count` files and train on some, or all; return what was wrong, a line each."""
    rng = np.random.default_rng(seed)
    ends: Counter[int] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, told = folder / "m.safetensors", folder / "told"
        bases = write_bases(folder)
        whole = {}
        for path, _ in bases:
            assert train(path, model, told) == 0, told.read_text()
            whole[path] = _weights(model)
        started = time.perf_counter()
        for number in range(count):
            path, checked = bases[number % len(bases)]
            broken = folder / path.name.replace(".parquet", "-broken.parquet")
            broken.write_bytes(damage(path.read_bytes(), rng))
            if numbers and number not in numbers:
                continue
            model.unlink(missing_ok=True)
            code = train(broken, model, told)
            ends[code] += 1
            good = code == 0 and _weights(model) == whole[path]
            found = complaint(code, told.read_text(), good, checked)
            if found:
                wrong.append(f"{number} {path.name}: {found}: {told.read_text()[-300:]}")
        seconds = time.perf_counter() - started
    codes = dict(ends)
    sys.stdout.write(f"{count} damaged files, {seconds:.0f} s, exit codes {codes}\n")
    return wrong


def _weights(model: Path) -> bytes:
    """Return what a model learnt; its record tells the files apart."""
    import fastsoftmax

    return fastsoftmax.load(model).coef.tobytes()


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]] or [500]
    problems = run(given[0], set(given[1:]))
    sys.exit("\n".join(problems) or 0)

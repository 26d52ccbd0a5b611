"""Damaged checkpoints: each is refused in one clear sentence, or training goes on from it.

`python -m tests.fuzz_checkpoints [COUNT]` makes COUNT of them (2,000 unless said) as `fuzz_models`
does, from runs of every kind that were stopped, and resumes them. The checksum is made anew for
most, as only somebody with ill will does.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import fastsoftmax
from fastsoftmax.errors import DataError, DivergedError, OptionError
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors
from tests.fuzz_models import NUMBERS, Subject, another, changed, damage_bytes, run

RUNS: dict[str, dict[str, Any]] = {
    "steps": {"epochs": 3, "learning_rate": 0.1, "average": True},
    "l1": {"epochs": 2, "l1": 0.01, "holdout": 0.2, "patience": 1},
    "windows": {"epochs": 3, "shuffle_window": 64, "adaptive": True},
    "batches": {"epochs": 2, "batch_size": 16},
    "full gradients": {"solver": "lbfgs", "epochs": 6},
}
X = np.random.default_rng(0).normal(size=(200, 3))
Y = np.arange(200) % 3
X[np.arange(200), Y] += 1


def resume(kind: str, folder: Path, **options: Any) -> fastsoftmax.Model:
    return fastsoftmax.train(X, Y, checkpoint=str(folder), **RUNS[kind], **options)


def made_in(folder: Path) -> Subject:
    """Return the checkpoints of runs that were stopped; the kind of the run goes before each."""
    bases = []
    for kind in RUNS:
        state = folder / "state"
        resume(kind, state, checkpoint_every=1, report=lambda progress: progress.finished)
        newest = max(state.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        bases.append(kind.encode() + b"\n" + newest.read_bytes())
        shutil.rmtree(state)
    return Subject(bases, damage, complaint)


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a checkpoint with something wrong in it; the kind of its run stays."""
    kind, content = content.split(b"\n", 1)
    if not rng.integers(4):
        return kind + b"\n" + damage_bytes(content, rng)
    path = Path(f"/dev/shm/{rng.integers(2**62)}")
    path.write_bytes(content)
    arrays, metadata = decode_tensors(path)
    path.unlink()
    arrays = {name: array.copy() for name, array in arrays.items()}
    text = json.loads(metadata["run"])
    if rng.integers(3):
        text["state"] = changed(text["state"], rng)
    else:
        name = str(rng.choice(sorted(arrays)))
        arrays[name] = another(arrays[name], rng)
        if not rng.integers(4):
            with np.errstate(all="ignore"):
                arrays[name] = np.full(arrays[name].shape, rng.choice(NUMBERS)).astype(np.float32)
    metadata["run"] = json.dumps(text)
    return kind + b"\n" + b"".join(encode_tensors(arrays, metadata))


def complaint(path: Path) -> str | None:
    """Return how a checkpoint was refused, or None where training went on from it."""
    kind, content = path.read_bytes().split(b"\n", 1)
    state = path.with_suffix(".state")
    state.mkdir(exist_ok=True)
    for name in ("checkpoint-a.safetensors", "checkpoint-b.safetensors"):
        (state / name).unlink(missing_ok=True)
    (state / "checkpoint-a.safetensors").write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = resume(kind.decode(), state, resume=True, threads=1)
    except (OptionError, DataError, DivergedError) as error:
        return f"{str(error).rstrip('.')[:499]}."
    assert np.isfinite(model.coef).all()
    return None


if __name__ == "__main__":
    problems = run(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000, made_in)
    sys.exit("\n".join(problems) or 0)

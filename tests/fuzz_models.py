"""Damaged model files: each is refused in one clear sentence, or is a model that can be used.

`python -m tests.fuzz_models [COUNT]` makes COUNT of them (10,000 unless said) from small models of
every kind: bytes flipped, pieces cut, doubled and moved, and values in the header, the description
and the tensors replaced by what no file should hold, the checksum made anew so that it does not
catch them first. Processes of little memory load them, a batch each. A model that is let in must
predict matrices and tables, save, load again and be inspected; data may not fit it, nothing else
may happen.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fastsoftmax.cli.main import main
from fastsoftmax.data.in_use import InUse
from fastsoftmax.data.source import Column
from fastsoftmax.data.vocabulary import Recipe, Vocabulary
from fastsoftmax.errors import DataError, ModelFileError
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model, load
from fastsoftmax.model.safetensors import CHECKSUM, DTYPES
from fastsoftmax.model.scaling import Scaling
from tests.models import make_model

SECONDS = 5  # that a file may take
MEMORY = 2**29  # bytes that a batch may take beside what its process has at its start
BATCH = 500

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 4, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1,
    10**299, 10**400, 0.0, -0.0, 0.5, 1e-320, 1e300, -1e300, 1e999, float("nan"), -float("inf"),
    "", "a", "0", "1", "F32", "F64", "I64", "U8", "weights", "int64", "string", "bool", "mean",
    "drop", "\0", "\x1b[2J", "\n", "\udcff", "\u202e", "é", "x" * 2000, [], [0], [1, 2, 3], [[]],
    ["a", "b"], [0, 0], [2**62, 0], [1e308] * 4, {}, {"a": 1}, {"name": "a", "width": 2},
    {"kind": "string", "values": ["a", "b", "c"]}, [{"name": "a", "width": None}] * 4,
]  # fmt: skip
NUMBERS = [0.0, -0.0, 1.0, 1e-320, 1e30, 1e300, -1e308, np.nan, np.inf, -np.inf]


def write_bases(folder: Path) -> list[bytes]:
    """Return the files of small models of every kind."""
    classes = [given_classes(["a", "b\n", "é"]), given_classes([False, True]), None]
    models = [
        make_model(2 if c and c.kind == "bool" else 3, classes=c, dtype=dtype, named=named)
        for c in classes
        for dtype in ("float32", "float64")
        for named in (True, False)
    ]
    for model in models[::3]:
        model.conditioning = Scaling(np.arange(4.0), np.array([1.0, 0.5, 2.0, 1e-3]))
        model.record["deviations"] = [0.5, 1.0, 0.0, 2.0]
        model.record["temperature"] = 1.5
    treated = make_model(3, 6)
    treated.columns = (
        Column("a", None, Classes("string", ("p", "q")), (0.0,), True),
        Column("v", 2, None, (0.5, 1.5), True),
    )
    treated.record["options"]["nulls"] = "mean"
    file = {"name": "a.parquet", "size": 9, "rows": 4, "sha256": "0", "pieces": ["1", "2"]}
    parent = {"sha256": "0123456789", "rows": 4, "epochs": 2}
    treated.record |= {"rows": 4, "data": [file], "ledger": [file], "lineage": [parent]}
    sparse = make_model(3, 7)
    sparse.columns = SPARSE
    files = []
    for model in [*models, treated, sparse]:
        model.save(folder / "base")
        files.append((folder / "base").read_bytes())
    return files


SPARSE = (
    Column("t", text=Vocabulary(Recipe((1, 1)), np.frombuffer(b"ab", np.uint8), np.arange(3))),
    Column("c", None, Classes("string", ("p", "q")), sparse=InUse(2, np.array([1, 0]))),
    Column("i", None, Classes("int64", (3, 9)), sparse=InUse(2, np.array([0, 1]))),
    Column("s", sparse=InUse(9, np.array([5]))),
)
TABLE = pa.table(
    {
        "a": pa.array(["p", "q", None]),
        "b": [0.5, 1.5, 2.5],
        "v": pa.array([[1.0, 2.0, 3.0]] * 3),
        "w": pa.array([[1.0, 2.0], None, [3.0, None]]),
        "label": [0, 1, 2],
        "t": ["a b", "", "b"],
        "c": [["p"], [], ["z", "q"]],
        "i": pa.array([3, 9, 4]),
        "s": pa.array([[5], [], [1, 5]]),
    }
)
TABLES = [
    TABLE.select(["t", "c", "i", "s"]),
    TABLE.select(["b", "v"]).rename_columns(["a", "v"]),
    TABLE.select(["a", "w"]).rename_columns(["a", "v"]),
]


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file's bytes with something wrong in them."""
    return MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, double or move a piece."""
    changed = bytearray(content)
    kind, at = rng.integers(4), int(rng.integers(len(content)))
    size = int(rng.integers(1, 60))
    if kind == 0:
        for place in rng.integers(0, len(changed), rng.integers(1, 5)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        changed[at : at + size] = b""
    else:
        start = int(rng.integers(len(content)))
        end = at + size if rng.integers(2) else at
        changed[at:end] = content[start : start + size]
    return bytes(changed)


def damage_without_checksum(content: bytes, rng: np.random.Generator) -> bytes:
    """Do the same to a file that has no checksum."""
    header, data = split(content)
    del header["__metadata__"][CHECKSUM]
    return damage_bytes(join(header, data), rng)


def damage_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a value of the header, and drop the checksum or leave it."""
    header, data = split(content)
    if rng.integers(8):
        del header["__metadata__"][CHECKSUM]
    for _ in range(rng.integers(1, 3)):
        header = changed(header, rng)
    return join(header, data)


def damage_description(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a value of the model's description."""
    header, data = split(content)
    metadata = header["__metadata__"]
    del metadata[CHECKSUM]
    told = json.loads(metadata["model"])
    for _ in range(rng.integers(1, 3)):
        told = changed(told, rng)
    metadata["model"] = text = json.dumps(told)
    if not rng.integers(20):  # as no encoder writes it
        at = int(rng.integers(len(text)))
        noise = ["NaN", "Infinity", '"a":1,', "\\ud800", "[" * 500, "9" * 5000, ",", "\0"]
        metadata["model"] = text[:at] + noise[rng.integers(len(noise))] + text[at:]
    return join(header, data)


def damage_numbers(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits of the tensors alone."""
    header, data = split(content)
    del header["__metadata__"][CHECKSUM]
    changed = bytearray(data)
    for place in rng.integers(0, len(changed), rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return join(header, bytes(changed))


def damage_tensors(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the numbers, the dtype or the shape of tensors; lengths agree with each other."""
    header, data = split(content)
    metadata = header.pop("__metadata__")
    del metadata[CHECKSUM]
    tensors = {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        .copy()
        for name, entry in header.items()
    }
    for _ in range(rng.integers(1, 3)):
        name = str(rng.choice(sorted(tensors)))
        tensors[name] = another(tensors[name], rng)
        if not rng.integers(6):
            tensors[str(rng.choice(["centre", "scale", "bias", "x"]))] = tensors[name]
        if not rng.integers(6) and len(tensors) > 1:
            del tensors[name]
    rebuilt: dict[str, Any] = {"__metadata__": metadata}
    at, pieces = 0, []
    codes = {dtype: code for code, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        rebuilt[name] = {
            "dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end],
        }  # fmt: skip
        pieces.append(tensor.tobytes())
        at = end
    return join(rebuilt, b"".join(pieces))


MUTATIONS: list[Callable[[bytes, np.random.Generator], bytes]] = [
    damage_bytes,
    damage_without_checksum,
    damage_header,
    damage_description,
    damage_description,
    damage_numbers,
    damage_tensors,
]


def another(tensor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a tensor that differs in numbers, dtype or shape."""
    kind = rng.integers(4)
    if kind == 0 and tensor.size and tensor.dtype.kind == "f":
        with np.errstate(over="ignore"):
            tensor.reshape(-1)[rng.integers(tensor.size)] = NUMBERS[rng.integers(len(NUMBERS))]
        return tensor
    if kind == 1:
        with np.errstate(over="ignore", invalid="ignore"):
            return tensor.astype(rng.choice(list(DTYPES.values())))
    if kind == 2 and tensor.ndim:
        return tensor[rng.integers(2) :]
    shapes = [(0,), (), (1, -1), (-1, 1), (-1,), (0, 4), (3, 0), (1, 1, -1)]
    shape = shapes[rng.integers(len(shapes))]
    return tensor.reshape(shape) if -1 in shape else np.zeros(shape, tensor.dtype)


def changed(value: Any, rng: np.random.Generator) -> Any:
    """Return JSON with one value, chosen anywhere in it, replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    places = list(walk(value))
    if not places:
        return value
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 1:
        holder[str(HOSTILE[rng.integers(len(HOSTILE))])] = holder.pop(key)
    elif kind == 2 and len(places) > 1:
        other, at = places[rng.integers(len(places))]
        holder[key] = copy.deepcopy(other[at])
    else:
        holder[key] = HOSTILE[rng.integers(len(HOSTILE))]
    return value


def walk(value: Any) -> Any:
    """Yield the container and the key of each value in JSON."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in list(items):
        yield value, key
        yield from walk(inner)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tensors' bytes of a file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict[str, Any], data: bytes) -> bytes:
    """Return the bytes of a file."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def complaint(path: Path) -> str | None:
    """Return how a file was refused, or None where it is a model that can be used."""
    try:
        model = load(path)
    except ModelFileError as error:
        return str(error)
    use(model, path)
    return None


def use(model: Model, path: Path) -> None:
    """Do with a model all that may be done; only data that do not fit it are an error."""
    names = model.classes.tolist()
    assert names == list(model.classes_.values)
    matrix = np.ones((3, model.n_features))
    for rows in (matrix, matrix.astype(np.float32), matrix.astype(np.int8), *TABLES):
        with contextlib.suppress(DataError):
            p = model.predict_proba(rows)
            assert p.shape == (3, len(names))
            assert model.nulls == "drop" or np.isfinite(p).all()
            assert all(label in names for label in model.predict(rows).tolist())
    assert np.isfinite(model.coef).all()
    assert np.isfinite(model.intercept).all()
    again = path.with_suffix(".again")
    model.save(again)
    assert repr(load(again)) == repr(model)
    for argv in (["inspect", str(path)], ["inspect", str(path), "--json"]):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(argv) == 0
        assert all(line.isprintable() for line in said.getvalue().splitlines())


class Subject(NamedTuple):
    """What is fuzzed: whole files, how they are damaged, and what is said of one that is loaded."""

    bases: list[bytes]
    damage: Callable[[bytes, np.random.Generator], bytes]
    complaint: Callable[[Path], str | None]


def run_batch(subject: Subject, folder: Path, start: int, count: int) -> dict[str, Any]:
    """Load `count` damaged files; return how many were refused and what was wrong with others."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    warnings.simplefilter("error")
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    signal.signal(signal.SIGALRM, stop)
    path = folder / f"{start}.safetensors"
    wrong, refused = [], 0
    for number in range(start, start + count):
        base = subject.bases[number % len(subject.bases)]
        path.write_bytes(subject.damage(base, np.random.default_rng(number)))
        signal.alarm(SECONDS)
        try:
            found = subject.complaint(path)
            assert found is None or re.fullmatch(r".{,500}\.", found), found
            refused += found is not None
        except BaseException as error:
            wrong.append(f"{number}: {type(error).__name__}: {str(error)[:300]!r}")
        signal.alarm(0)
    return {"refused": refused, "wrong": wrong}


def models_in(folder: Path) -> Subject:
    """Return models as what is fuzzed."""
    return Subject(write_bases(folder), damage, complaint)


def run(count: int, made_in: Callable[[Path], Subject] = models_in) -> list[str]:
    """Load `count` damaged files in processes of little memory; return what was wrong."""
    refused, wrong, started = 0, [], time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject = made_in(folder)
        for content in subject.bases:
            (folder / "whole").write_bytes(content)
            assert subject.complaint(folder / "whole") is None
        for start in range(0, count, BATCH):
            told = in_a_process(subject, folder, start, min(BATCH, count - start))
            refused += told["refused"]
            wrong += told["wrong"]
    seconds = time.perf_counter() - started
    sys.stdout.write(f"{count} damaged files, {seconds:.0f} s, {refused} refused\n")
    return wrong


def in_a_process(subject: Subject, folder: Path, start: int, count: int) -> dict[str, Any]:
    """Run a batch in a child; return what it found."""
    child = os.fork()
    if child == 0:
        try:
            (folder / "told").write_text(json.dumps(run_batch(subject, folder, start, count)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0 if (folder / "told").exists() else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        return {"refused": 0, "wrong": [f"files from {start}: the process ended with {code}"]}
    told = json.loads((folder / "told").read_text())
    (folder / "told").unlink()
    return told


if __name__ == "__main__":
    problems = run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    sys.exit("\n".join(problems) or 0)

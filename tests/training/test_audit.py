"""Wrong labels that were planted are found, and each with its place."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.training import audit
from fastsoftmax.training.audit import COLUMNS
from tests.floors import ROOT

DIGITS = ROOT / "examples/data/digits-train.parquet"


def planted(seed):
    """Return the digits with 2 % of their labels wrong, and which."""
    table, random = pq.read_table(DIGITS), np.random.default_rng(seed)
    y = table["digit"].to_numpy().copy()
    wrong = random.choice(len(y), len(y) // 50, replace=False)
    y[wrong] = (y[wrong] + random.integers(1, 10, len(wrong))) % 10
    return table.set_column(table.schema.names.index("digit"), "digit", pa.array(y)), set(wrong)


def test_two_in_a_hundred_wrong_digits_are_found_as_the_documents_say():
    hits = found = there = 0
    for seed in (0, 1, 2):
        table, wrong = planted(seed)
        rows = fastsoftmax.audit(table, "digit")["row"].to_pylist()
        hits, found, there = hits + len({*rows} & wrong), found + len(rows), there + len(wrong)
    assert hits / found >= 0.85  # precision
    assert hits / there >= 0.78  # recall


def judged(rows, classes, sure, wrong, seed=0):
    """Return labels, a share of them wrong, and the probabilities of an honest judge."""
    random = np.random.default_rng(seed)
    z = sure * random.normal(size=(rows, classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (p.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1).clip(0, classes - 1)
    odd = random.choice(rows, round(wrong * rows), replace=False)
    y[odd] = (y[odd] + random.integers(1, classes, len(odd))) % classes
    return y, p, odd


def listed(y, p):
    chances = audit._Chances()
    for start in range(0, len(y), 700):
        chances.add(y[start : start + 700], p[start : start + 700])
    own = p[np.arange(len(y)), y]
    return np.flatnonzero((p.argmax(axis=1) != y) & (audit._bin_of(own) < chances.limit()))


@pytest.mark.parametrize("wrong", [0.02, 0.1, 0.25])
@pytest.mark.parametrize(("classes", "sure"), [(2, 8), (3, 6), (30, 6)])
def test_labels_are_listed_where_they_are_rather_wrong_than_right(classes, sure, wrong):
    y, p, odd = judged(5_000, classes, sure, wrong)
    found = listed(y, p)
    hits = len(np.intersect1d(found, odd))
    assert hits >= 0.75 * len(found)
    assert hits >= 0.6 * len(odd)
    # The worst that is listed is about as likely right as wrong: a few more are mostly right ones.
    order = np.argsort(p[np.arange(len(y)), y])
    further = np.setdiff1d(order[: len(found) + len(odd) // 2], found)
    assert len(np.intersect1d(further, odd)) <= 0.65 * len(further)


@pytest.mark.parametrize("sure", [0.5, 2, 6])
def test_nothing_is_listed_where_every_label_is_as_likely_as_it_is_given(sure):
    y, p, _ = judged(20_000, 4, sure, 0)
    assert len(listed(y, p)) <= 5


def test_a_row_is_named_by_file_row_group_and_row(tmp_path):
    table, wrong = planted(0)
    for part, name in enumerate(("a.parquet", "b.parquet")):
        some = table.slice(700 * part, 700)
        pq.write_table(some, tmp_path / name, row_group_size=300)
    rows = fastsoftmax.audit(tmp_path, "digit", l2=1e-3)
    assert tuple(rows.schema.names) == COLUMNS
    assert [str(kind) for kind in rows.schema.types] == [
        "int64", "string", "int64", "int64", "int64", "int64", "double", "double",
    ]  # fmt: skip
    for row in rows.to_pylist():
        file = pq.ParquetFile(row["file"])
        there = file.read_row_group(row["row_group"])["digit"][row["row_in_group"]].as_py()
        assert there == row["given"] == table["digit"][row["row"]].as_py()
        assert row["suggested"] != row["given"]
    assert (np.diff(rows["p_given"].to_numpy()) >= 0).all()
    assert len({*rows["row"].to_pylist()[:10]} & wrong) >= 8


def test_rows_in_memory_have_no_file(capsys):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(200, 2)) - 3, rng.normal(size=(200, 2)) + 3])
    y = np.repeat(["left", "right"], 200)
    y[7] = "right"
    found = fastsoftmax.audit(X, y, l2=1e-3).to_pylist()
    assert [(row["row"], row["given"], row["suggested"]) for row in found] == [(7, "right", "left")]
    assert found[0]["file"] is found[0]["row_group"] is found[0]["row_in_group"] is None


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "jsonl"])
def test_the_command_writes_and_lists_them(tmp_path, capsys, ending):
    table, wrong = planted(0)
    pq.write_table(table, tmp_path / "rows.parquet")
    out = tmp_path / f"suspects.{ending}"
    given = ["audit", str(tmp_path / "rows.parquet"), "--target", "digit", "--l2", "0.001"]
    assert main([*given, "--quiet", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    first = shown.splitlines()[1]
    assert first.startswith("row ")
    assert int(first.split()[1]) in wrong
    assert out.stat().st_size > 0
    if ending == "jsonl":
        assert main([*given, "--quiet", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["rows"]
        assert listed == [json.loads(line) for line in out.read_text().splitlines()]

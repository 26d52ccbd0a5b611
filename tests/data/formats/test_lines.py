"""CSV and JSON lines are read as the same rows in Parquet are; what is wrong is named by line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax import DataError
from fastsoftmax.data.formats import csv_lines
from fastsoftmax.data.formats import lines as text
from fastsoftmax.data.open import open_files

pytestmark = pytest.mark.filterwarnings("ignore:after epoch")  # of labels that mean nothing
FORMATS = ["csv", "tsv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "ndjson.zst"]
GIVEN = {"shuffle": "off", "learning_rate": 0.01, "epochs": 2}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that small files are of many blocks."""
    monkeypatch.setattr(text, "BLOCK_BYTES", 2**11)
    monkeypatch.setattr(text, "SAMPLE_BYTES", 2**9)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(700, 3)).round(3)
    labels = np.where(X[:, 0] > 0, "up, up", 'say "down"\nor so')
    origin = np.array(["JFK", "EWR", "LGA"])[np.arange(700) % 3]
    columns = {"a": X[:, 0], "b": X[:, 1], "n": np.arange(700) % 5, "origin": origin, "y": labels}
    return pa.table({**columns, "sure": X[:, 2] > 0})


def written(table, path):
    """Write a table in the format of the path's name; return the path."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".csv", ".tsv")):
        sink = pa.BufferOutputStream()
        delimiter = "\t" if name.endswith(".tsv") else ","
        options = pyarrow.csv.WriteOptions(delimiter=delimiter)
        pyarrow.csv.write_csv(table, sink, options)
        data = sink.getvalue().to_pybytes()
    else:
        data = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
    if path.name.endswith(".gz"):
        data = gzip.compress(data)
    if path.name.endswith(".zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return str(path)


def rows_of(path, known=None):
    """Return all rows of a file as a table."""
    files = open_files([str(path)], known)
    batches = [batch.rows for batch in files.read(files.schema.names, None, 100)]
    return pa.Table.from_batches(batches), files


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_lines_is_read_and_trained_on_as_parquet_is(table, tmp_path, ending):
    path = written(table, tmp_path / f"rows.{ending}")
    found, files = rows_of(path)
    assert found.to_pydict() == table.to_pydict()
    assert len(files.pieces) > 5
    pq.write_table(table, tmp_path / "rows.parquet")
    given = {**GIVEN, "categorical": ["origin"]}
    want = fastsoftmax.train(tmp_path / "rows.parquet", "y", **given)
    model = fastsoftmax.train(path, "y", **given)
    np.testing.assert_array_equal(model.coef, want.coef)
    assert model.feature_names == want.feature_names
    assert list(model.predict(path)) == list(want.predict(table))
    assert fastsoftmax.evaluate(model, path).rows == 700


def test_later_passes_do_not_read_the_text_again(table, tmp_path, monkeypatch):
    path = written(table, tmp_path / "rows.csv")
    begun = []
    whole = text.TextPath._convert
    monkeypatch.setattr(text.TextPath, "_convert", lambda self: begun.append(1) or whole(self))
    fastsoftmax.train(path, "y", categorical=["origin"], **{**GIVEN, "epochs": 3})
    assert len(begun) == 1
    known = {"y": "string", "n": "int64"}  # of which types they are is known by now
    assert rows_of(path, known)[0].equals(rows_of(path)[0])
    assert len(begun) == 1
    assert rows_of(path, {"n": "double"})[0].schema.field("n").type == pa.float64()
    assert len(begun) == 2


def test_nothing_is_left_in_the_folder_of_private_files(table, tmp_path, monkeypatch):
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setenv("TMPDIR", str(private))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = written(table, tmp_path / "rows.csv")
    _, files = rows_of(path)
    assert files.pieces
    assert not list(private.iterdir())


def test_types_come_from_the_whole_file(tmp_path):
    lines = ["i,f,s,empty,t"] + [f"{i},{i},{i},," for i in range(3000)]
    lines[2500] = "2499,0.5,2499,,"
    lines[2900] = "2899,2899,x1,,7"
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    found, _ = rows_of(path)
    kinds = {field.name: str(field.type) for field in found.schema}
    assert kinds == {"i": "int64", "f": "double", "s": "string", "empty": "null", "t": "int64"}
    assert found["s"][0].as_py() == "0"
    assert found["f"][2499].as_py() == 0.5
    assert found["t"].null_count == 2999


def test_a_column_that_one_line_made_text_is_refused_with_that_line(tmp_path):
    lines = ["a,y"] + [f"{i},{i % 2}" for i in range(1000)]
    lines[900] = "n/a?,1"
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r'column "a" .* no number \(line 901 holds \'n/a\?\'\)'):
        fastsoftmax.train(path, "y")


@pytest.mark.parametrize(
    ("types", "sentence"),
    [
        ({"a": "float64"}, r'rows.csv, line 901: column "a" holds \'n/a\?\', which is no double'),
        ({"y": "bool"}, r'line 902: column "y" holds \'2\', which is no bool'),
    ],
)
def test_a_value_that_is_not_of_the_type_given_is_named(tmp_path, types, sentence):
    lines = ["a,y"] + [f"{i},{i % 2}" for i in range(1000)]
    lines[900] = "n/a?,1"
    lines[901] = "5,2"
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=sentence):
        fastsoftmax.train(path, "y", types=types)


def test_types_that_are_given_are_taken(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("zip,y\n" + "".join(f"0{i % 3},{i % 4 // 2}\n" for i in range(90)))
    given = {**GIVEN, "categorical": ["zip"]}
    plain = fastsoftmax.train(path, "y", **given)
    assert plain.feature_names == ("zip=0", "zip=1", "zip=2")
    model = fastsoftmax.train(path, "y", types={"zip": "string", "y": "string"}, **given)
    assert model.feature_names == ("zip=00", "zip=01", "zip=02")
    assert list(model.classes) == ["0", "1"]
    (tmp_path / "one.csv").write_text("zip\n01\n")  # a model knows what its columns were
    assert model.predict_proba(tmp_path / "one.csv").shape == (1, 2)
    with pytest.raises(fastsoftmax.OptionError, match="types gives columns one of string, int64"):
        fastsoftmax.train(path, "y", types={"zip": "text"})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a,y", "1,2", "1"], "rows.csv, line 3: it has 1 fields, and the line of heads 2"),
        (["a,y", "1,2", '"1\n2",3', "1,2,3"], "rows.csv, line 5: it has 3 fields"),
        (["1,2", "3,4"], "rows.csv: its first line holds numbers"),
        ([], "rows.csv: the file is empty"),
        (["a,y"], "rows.csv: there are no rows"),
        (["a,y", "nan,1", "1,0"], 'rows.csv, line 2: .*column "a"'),
        (["a,y", "1,2", "oops,3", "4,5"], "no number \\(line 3 holds 'oops'\\)"),
        (["a,y", "1,2", '2,"x', "3,4", "4,5"], "rows.csv, line 3: a quote is opened and never"),
        (["a,b,y", f'1,"{"x" * 2**18}",x', "2,3"], "rows.csv, line 3: it has 2 fields"),
        (["", "a,y", "1,2"], "rows.csv: its first line is empty"),
        (["a,y\r1,2\r3,4"], "rows.csv: its lines end in carriage returns alone"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_named_by_line(tmp_path, lines, sentence):
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=sentence):
        fastsoftmax.train(path, "y", learning_rate=0.1)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (['{"a": 1, "y": 0}', '{"a": 1,'], "rows.jsonl, line 2: it is no JSON"),
        (['{"a": 1, "y": 0}', "[1]"], r"rows.jsonl, line 2: it holds b'\[1\]', and no object"),
        (["[1, 2]"], "rows.jsonl: it begins with .*, and no object"),
        (
            ['{"a": 1, "y": 0}', '{"a": 1, "a": 2, "y": 0}'],
            'line 2: .*the key "a" stands in it twice',
        ),
        (
            ['{"a": 1, "y": 0}', '{"a": "x", "y": 1}'],
            "line 2: column \"a\" holds 'x', and a number at line 1",
        ),
    ],
)
def test_what_is_wrong_with_json_lines_is_named_by_line(tmp_path, lines, sentence):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=sentence):
        fastsoftmax.train(path, "y", learning_rate=0.1)


def test_a_kind_that_changes_far_down_in_json_lines_is_an_error_with_its_line(tmp_path):
    lines = [json.dumps({"a": i, "y": i % 2}) for i in range(900)]
    lines[700] = json.dumps({"a": "many", "y": 1})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 701: .* holds 'many', and a number at"):
        fastsoftmax.train(path, "y", learning_rate=0.1)


def test_vectors_and_late_keys_of_json_lines_are_read(tmp_path):
    rows = [{"v": [i % 3, 2], "y": i % 2} for i in range(400)]
    rows[300] = {"v": [0.5, 1], "y": 1, "late": 3}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found, _ = rows_of(path)
    assert str(found.schema.field("v").type) == "list<item: double>"
    assert found["late"].null_count == 399
    model = fastsoftmax.train(path, "y", features=["v"], **GIVEN)
    assert model.n_features == 2


def test_nulls_are_empty_fields_and_quotes_keep_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('a,s,y\n1,,0\nNA,"",1\n3,"NA",0\n')
    found, _ = rows_of(path)
    assert found["a"].to_pylist() == [1, None, 3]
    assert found["s"].to_pylist() == [None, "", "NA"]
    with pytest.raises(DataError, match=r'line 3: .*"a" is null'):
        fastsoftmax.train(path, "y", features=["a"], learning_rate=0.1)


def test_whole_numbers_in_one_file_and_others_in_the_next_are_one_column(tmp_path):
    (tmp_path / "1.csv").write_text("a,y\n" + "1,0\n2,1\n" * 9)
    (tmp_path / "2.csv").write_text("a,y\n" + "1.5,0\n2,1\n" * 9)
    model = fastsoftmax.train(tmp_path, "y", **GIVEN)
    assert model.record["rows"] == 36


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("größe,y\n1,2\n".encode("latin-1"), r"line 1: it is not in UTF-8 \(b'gr.xf6"),
        ("a,y\n1,x\n2,grün\n".encode("latin-1"), r"line 3: it is not in UTF-8 \(b'.*gr.xfcn"),
        ("a,y\n1,x\n".encode("utf-16"), "rows.csv: it is in UTF-16. Write it in UTF-8"),
        ('{"a": 1, "y": 0}\n{"a": 1, "y": "ü"}'.encode("latin-1"), "line 2: it is not in UTF-8"),
    ],
)
def test_text_that_is_not_in_utf_8_is_named_and_never_repaired(tmp_path, data, sentence):
    path = tmp_path / ("rows.jsonl" if data.startswith(b"{") else "rows.csv")
    path.write_bytes(data)
    with pytest.raises(DataError, match=sentence):
        fastsoftmax.train(path, "y")


def test_a_value_that_made_a_long_column_text_is_named_wherever_it_is_found(tmp_path):
    lines = ["a,t,y"] + [f'{i},"note, of\nmore",{i % 2}' for i in range(3000)]
    for odd in (1, 1500, 2999):
        changed = [*lines]
        changed[odd] = f"n/a?,x,{odd % 2}"
        path = tmp_path / f"{odd}.csv"
        path.write_text("\n".join(changed))
        with pytest.raises(DataError, match=rf"line {2 * odd} holds 'n/a\?'"):
            fastsoftmax.train(path, "y", features=["a"])


def test_types_are_not_told_by_places_that_begin_within_a_value(tmp_path):
    """Whose lines have as many fields as rows have, and words where these have numbers."""
    note = "\n".join(["so, so, so"] * 40)
    path = tmp_path / "rows.csv"
    path.write_text("a,t,y\n" + "".join(f'{i},"{note}",{i % 2}\n' for i in range(200)))
    found, _ = rows_of(path)
    assert [str(field.type) for field in found.schema] == ["int64", "string", "int64"]


def test_rows_of_text_are_cut_as_the_standard_library_cuts_them():
    draw = random.Random(3)
    for _ in range(2000):
        text = "".join(draw.choice('a1,"\n;') for _ in range(draw.randrange(15)))
        want = [fields for fields in csv.reader(io.StringIO(text, "")) if fields]
        assert [fields for _, fields, _ in csv_lines.rows_of(text, ",")] == want


def test_other_delimiters_and_a_byte_order_mark_are_noticed(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfa;b\n1,5;2\n")
    found, _ = rows_of(path)
    assert found.to_pydict() == {"a": ["1,5"], "b": [2]}
    path.write_bytes(b'"a;b;c",d\n1,2\n')
    assert rows_of(path)[0].to_pydict() == {"a;b;c": [1], "d": [2]}
    path.write_bytes(b"\xef\xbb\xbfa,b\n" + b"1,2\n" * 3000)  # long enough to look ahead in
    assert rows_of(path)[0].column_names == ["a", "b"]


def test_a_model_goes_on_with_the_files_that_are_new(tmp_path):
    lines = [f"{i % 7},{i % 4 // 2}\n" for i in range(2000)]
    (tmp_path / "1.csv").write_text("a,y\n" + "".join(lines))
    model = fastsoftmax.train(tmp_path, "y", **GIVEN)
    (tmp_path / "2.csv").write_text("a,y\n" + "".join(lines[:500]))
    after = fastsoftmax.train(tmp_path, "y", init=model, **GIVEN)
    assert after.record["rows"] == 500


def test_a_damaged_file_is_refused_in_a_sentence(table, tmp_path):
    path = written(table, tmp_path / "rows.csv.gz")
    data = (tmp_path / "rows.csv.gz").read_bytes()
    (tmp_path / "rows.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"rows.csv.gz: it cannot be read \("):
        fastsoftmax.train(path, "y")


def test_a_quote_that_is_not_closed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MOST_BYTES", 2**13)
    path = tmp_path / "rows.csv"
    path.write_text('a,y\n1,0\n"2,1\n' + "1,0\n" * 9000)
    with pytest.raises(DataError, match="Look for a quote that is not closed"):
        fastsoftmax.train(path, "y")

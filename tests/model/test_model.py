"""A model and its file: what is saved comes back, and what is damaged does not come in."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastsoftmax
from fastsoftmax.data.source import Column
from fastsoftmax.errors import ModelFileError, SaveError
from fastsoftmax.files import write_file
from fastsoftmax.labels import Classes, given_classes, sort_classes
from fastsoftmax.model.model import Model, load
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors
from tests.models import make_model

CLASSES = [
    given_classes([True, False]),
    given_classes(["b", "a", "é\n\x1b", ""]),
    sort_classes("uint64", [0, 2**64 - 1]),
    sort_classes("int8", [-128, 0, 127]),
]


def split(path: Path) -> tuple[dict, bytes]:
    """Return the header, without its checksum, and the tensors' bytes of a file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]["sha256"]
    return header, raw[8 + length :]


def join(path: Path, header: dict | str | bytes, data: bytes) -> None:
    """Write a file of a header and the tensors' bytes."""
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def saved(tmp_path) -> Path:
    """The file of a small model."""
    make_model().save(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", CLASSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("named", [True, False])
def test_a_model_that_is_saved_comes_back(tmp_path, dtype, classes, named):
    want = make_model(len(classes), dtype=dtype, classes=classes, named=named)
    want.save(tmp_path / "m")
    got = load(tmp_path / "m")
    assert got.weights.dtype == got.bias.dtype == got.dtype == dtype
    np.testing.assert_array_equal(got.weights, want.weights)
    np.testing.assert_array_equal(got.bias, want.bias)
    assert got.classes_ == want.classes_
    assert got.classes.dtype == want.classes.dtype
    assert got.columns == want.columns
    assert got.history == want.history
    assert got.record == want.record
    assert got.predict(np.ones((2, 4))).dtype == want.classes.dtype


def test_the_views_of_a_model_are_float64_and_named():
    model = make_model(3, 4)
    assert model.coef.dtype == model.intercept.dtype == np.float64
    assert model.coef.shape == (3, 4)
    assert model.intercept.shape == (3,)
    assert model.feature_names == ("a", "v[0]", "v[1]", "v[2]")
    assert make_model(named=False).feature_names is None
    assert repr(model) == "<Model: 3 classes, 4 features, float32, 1 epoch>"


def test_the_weights_of_a_model_cannot_be_changed_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        make_model().weights[0, 0] = 1


def test_the_same_model_is_the_same_bytes_wherever_it_is_saved(tmp_path):
    (tmp_path / "deeper").mkdir()
    digests = set()
    for seed, name in (("1", "a"), ("2", "deeper/b")):
        code = "import sys; from tests.models import make_model\nmake_model().save(sys.argv[1])"
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_order_of_keys_does_not_change_the_bytes(tmp_path):
    a, b = make_model(), make_model()
    b.record = dict(reversed(b.record.items()))
    a.save(tmp_path / "a")
    b.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_is_what_the_safetensors_package_reads(saved):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(saved, framework="numpy") as file:
        assert sorted(file.keys()) == ["bias", "weights"]
        np.testing.assert_array_equal(file.get_tensor("weights"), make_model().weights)
        assert file.metadata()["format"] == "fastsoftmax"


def test_a_file_that_the_safetensors_package_writes_is_read(saved):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    tensors, metadata = decode_tensors(saved)
    save_file(tensors, saved, metadata)
    np.testing.assert_array_equal(load(saved).weights, make_model().weights)


def test_tensors_are_aligned_in_the_file():
    for name in ("a", "ab", "abc"):
        pieces = encode_tensors({name: np.ones(3, np.float32)}, {})
        assert len(pieces[1]) % 8 == 0


def test_a_model_that_is_not_finite_is_not_saved(tmp_path):
    model = make_model()
    model.bias = np.array([0, np.nan, 0], np.float32)
    with pytest.raises(SaveError, match="not finite"):
        model.save(tmp_path / "m")
    assert not any(tmp_path.iterdir())


def test_a_history_that_is_not_finite_is_not_saved(tmp_path):
    model = make_model()
    model.history[0]["log_loss"] = float("inf")
    with pytest.raises(SaveError, match="not JSON"):
        model.save(tmp_path / "m")


def test_a_failure_to_save_leaves_the_old_model_whole(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(SaveError, match="No space left"):
        make_model(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["m"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="nowhere does not exist"):
        fastsoftmax.load(tmp_path / "nowhere")


def test_a_folder_or_a_pipe_is_not_a_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelFileError, match=r"not a regular file|directory"):
            load(path)


def test_a_file_cut_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            load(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(ModelFileError, match="should have 60 bytes, but 61 are there"):
        load(saved)


@given(data=st.data())
def test_a_file_with_a_changed_byte_is_read_or_refused_but_nothing_else(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("flipped") / "m"
    make_model().save(path)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(ModelFileError):
        assert isinstance(load(path), Model)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(saved):
    saved.write_bytes((2**26).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError, match="67108864 bytes, the file has 10 in all"):
        load(saved)
    saved.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError, match=r"m is not a model file\.$"):
        load(saved)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{" * 100_000, "not JSON"),
        ('{"a":1,"a":2}', "twice"),
        ('{"a":NaN}', "NaN is not JSON"),
        ('{"__metadata__":{"format":1}}', "not text"),
        ('{"__metadata__":[]}', "not text"),
        ('{"a":[]}', "not described"),
        ("{}", "not written by fastsoftmax"),
        ("{\udce9}".encode("utf-8", "surrogateescape"), "not JSON"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
        ('{"a":[' + "[]," * 5_000_000 + "0]}", "too many lists"),
        ('{"a":1e999}', "too large"),
        ('{"a":' + "9" * 5000 + "}", "too many digits"),
        ('{"a":0.' + "9" * 5000 + "}", "too many digits"),
    ],
)
def test_a_header_that_is_no_header_is_refused(saved, text, why):
    join(saved, text, b"")
    with pytest.raises(ModelFileError, match=why):
        load(saved)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"dtype": "I32"}, "differ in dtype"),
        ({"dtype": "I64"}, "does not fit its bytes"),
        ({"dtype": "BF16"}, "dtype 'BF16', which is not read"),
        ({"dtype": ["F32"]}, "which is not read"),
        ({"shape": [0, 2**62], "data_offsets": [12, 12]}, "no sizes"),
        ({"shape": [3, 5]}, "does not fit its bytes"),
        ({"shape": [2**62, 2**62]}, "no sizes"),
        ({"shape": [-3, -4]}, "no sizes"),
        ({"shape": [3.0, 4]}, "no sizes"),
        ({"shape": [True, 12]}, "no sizes"),
        ({"shape": [1] * 1000}, "no sizes"),
        ({"shape": 12}, "no sizes"),
        ({"shape": [12]}, "not a matrix"),
        ({"shape": [4, 3]}, "3 classes but weights for 4"),
        ({"data_offsets": [12]}, "no sizes"),
        ({"data_offsets": [60, 12]}, "does not fit its bytes"),
        ({"data_offsets": [8, 56]}, "overlap"),
        ({"data_offsets": [16, 64]}, "holes"),
        ({"extra": 1}, "not described"),
    ],
)
def test_tensors_that_contradict_the_file_are_refused(saved, entry, why):
    header, data = split(saved)
    header["weights"] |= entry
    join(saved, header, data)
    with pytest.raises(ModelFileError, match=why):
        load(saved)


def test_a_flipped_bit_anywhere_is_found(saved):
    whole = saved.read_bytes()
    for at in range(len(whole)):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with contextlib.suppress(ModelFileError):
            got, want = load(saved), make_model()  # what is changed is a name for the checksum
            np.testing.assert_array_equal(got.weights, want.weights)
            assert got.record == want.record


def test_what_a_damaged_file_says_of_itself_is_cut_short(saved):
    header, data = split(saved)
    header["x" * 10**6] = {}
    join(saved, header, data)
    with pytest.raises(ModelFileError, match=r"xxx\.\.\.xxx") as caught:
        load(saved)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "path", ["a\0b", "x" * 300], ids=["a null byte", "a name that is too long"]
)
def test_a_path_that_cannot_be_is_refused(path):
    with pytest.raises(ModelFileError, match="could not be read"):
        load(path)
    with pytest.raises(SaveError, match=r"null character|name too long|too long"):
        make_model(2).save(path)


@pytest.mark.parametrize("label", ["a\0", "x" * 10**6])
def test_a_class_of_any_name_is_predicted_as_it_is(saved, label):
    model = make_model(2, classes=given_classes(["b", label]))
    model.bias = np.float32([9 if v == label else -9 for v in model.classes_.values])
    model.save(saved)
    assert load(saved).predict(np.zeros((2, 4))).tolist() == [label, label]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_tensors_of_any_number_come_back(tmp_path, dtype, shape):
    want = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    write_file(tmp_path / "t", encode_tensors({"t": want, "s": want.T}, {"of": "é"}))
    tensors, metadata = decode_tensors(tmp_path / "t", "checkpoint")
    assert metadata == {"of": "é"}
    assert tensors["t"].dtype == want.dtype
    np.testing.assert_array_equal(tensors["t"], want, strict=True)
    np.testing.assert_array_equal(tensors["s"], want.T, strict=True)


def test_tensors_that_are_not_a_models_are_refused(saved):
    header, data = split(saved)
    header["W"] = header.pop("weights")
    join(saved, header, data)
    with pytest.raises(ModelFileError, match="not weights and bias"):
        load(saved)


def test_weights_that_are_not_finite_are_refused(saved):
    header, data = split(saved)
    join(saved, header, data[:-4] + np.float32("nan").tobytes())
    with pytest.raises(ModelFileError, match="not finite"):
        load(saved)


EPOCH = {"epoch": 1, "rows": 9, "log_loss": 0.5, "accuracy": 0.75}


def described(**changes) -> dict:
    """Return the description of the small model, changed."""
    told = {
        "classes": {"kind": "int64", "values": [0, 1, 2]},
        "columns": [{"name": "a", "width": None}, {"name": "v", "width": 3}],
        "history": [],
        "record": {},
    }
    return told | changes


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([], "incomplete"),
        ({"classes": {}}, "incomplete"),
        (described(classes=[0, 1, 2]), "classes are malformed"),
        (described(classes={"kind": "int64", "values": [0, 1]}), "2 classes but weights for 3"),
        (described(classes={"kind": "int64", "values": [0, 2, 1]}), "not sorted"),
        (described(classes={"kind": "int64", "values": [0, 1, 1]}), "not sorted"),
        (described(classes={"kind": "int64", "values": [0, 1, True]}), "not all of kind int64"),
        (described(classes={"kind": "int64", "values": [0, 1, 2.0]}), "not all of kind int64"),
        (described(classes={"kind": "int8", "values": [0, 1, 128]}), "not all of kind int8"),
        (described(classes={"kind": "string", "values": ["a", "b", 1]}), "not all of kind string"),
        (described(classes={"kind": "string", "values": ["a", "b", "\ud800"]}), "not all of kind"),
        (described(classes={"kind": "bool", "values": [False, True, 1]}), "not all of kind bool"),
        (described(classes={"kind": "int64", "values": [0]}), "fewer than two"),
        (described(classes={"kind": "object", "values": []}), "no known kind"),
        (described(classes={"kind": [], "values": []}), "no known kind"),
        (described(columns={}), "columns are malformed"),
        (described(columns=[{"name": 1, "width": 4}]), "columns are malformed"),
        (described(columns=[{"name": "a", "width": 0}]), "columns are malformed"),
        (described(columns=[{"name": "a", "width": True}]), "columns are malformed"),
        (described(columns=[{"name": "a", "width": 10**18}]), "hold 10{18} features"),
        (described(columns=[{"name": "a", "width": 2}] * 2), "two of its columns"),
        (described(history={}), "history is malformed"),
        (described(history=[{"epoch": "one"}]), "history is malformed"),
        (described(history=[{"epoch": 1}]), "history is malformed"),
        (described(history=[EPOCH | {"rows": None}]), "history is malformed"),
        (described(history=[EPOCH | {"validation_log_loss": 1}]), "history is malformed"),
        (described(columns=[{"name": "\udc80", "width": 4}]), "columns are malformed"),
        (described(record={"options": {"nulls": "guess"}}), "treatment of nulls: 'guess'"),
        (described(record={"options": {"nulls": []}}), "treatment of nulls"),
        (described(record={"temperature": 10**400}), "too many digits"),
        (described(record={"deviations": [1e308] * 4}), "not finite"),
        (described(record=[]), "record is malformed"),
        (described(record={"target": 1}), "malformed target"),
        (described(record={"options": []}), "malformed options"),
        (described(record={"prior": [0.5, 0.5]}), "malformed class frequencies"),
        (described(record={"prior": [0.5, 0.5, "x"]}), "malformed class frequencies"),
        (described(record={"prior": [-1, 1, 1]}), "malformed class frequencies"),
        (described(record={"deviations": [1.0, 2.0, 3.0]}), "malformed deviations"),
        (described(record={"deviations": [1.0, 2.0, 3.0, -1.0]}), "malformed deviations"),
        (described(record={"deviations": 1.0}), "malformed deviations"),
        (described(record={"temperature": 0.0}), "malformed temperature"),
        (described(record={"temperature": "warm"}), "malformed temperature"),
        (described(record={"lineage": [{"sha256": "ab", "epochs": 1}]}), "lineage is malformed"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(saved, told, why):
    header, data = split(saved)
    header["__metadata__"]["model"] = json.dumps(told)
    join(saved, header, data)
    with pytest.raises(ModelFileError, match=why):
        load(saved)


def test_a_model_of_a_later_format_says_so(saved):
    header, data = split(saved)
    header["__metadata__"]["format_version"] = "2"
    join(saved, header, data)
    with pytest.raises(ModelFileError, match="format version '2', and this fastsoftmax reads"):
        load(saved)


def test_a_description_that_is_not_json_is_refused(saved):
    header, data = split(saved)
    header["__metadata__"]["model"] = "{"
    join(saved, header, data)
    with pytest.raises(ModelFileError, match="description is not JSON"):
        load(saved)


def test_loading_and_predicting_a_row_loads_nothing_heavy(saved):
    code = (
        "import sys, numpy as np, fastsoftmax\n"
        "model = fastsoftmax.load(sys.argv[1]); model.predict_proba(np.ones((1, 4)))\n"
        "print(*{'numba', 'pyarrow', 'sklearn', 'pandas', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, saved],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == []


def test_a_column_names_its_features():
    assert Column("age").feature_names == ("age",)
    assert Column("v", 2).feature_names == ("v[0]", "v[1]")


def test_a_model_needs_neither_history_nor_record():
    model = Model(np.ones((2, 1)), np.zeros(2), Classes("bool", (False, True)))
    assert model.history == []
    assert model.record == {}
    assert repr(model) == "<Model: 2 classes, 1 features, float64>"

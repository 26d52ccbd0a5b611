"""Many files as one data set: patterns of features, folders that name columns, differences."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import DataError
from fastsoftmax.cli.main import main
from fastsoftmax.data.open import open_source
from tests.tables import table

pytestmark = pytest.mark.filterwarnings("ignore:after epoch:UserWarning")
N = 60
RNG = np.random.default_rng(4)
ROWS = pa.table(
    {
        **{f"pix{j}": RNG.normal(size=N) for j in range(12)},
        "age": RNG.integers(0, 9, N),
        "odd[1]": RNG.normal(size=N),
        "y": np.arange(N) % 3,
        "year": np.repeat([2023, 2024], N // 2),
        "city": np.tile(["Rome", "São Paulo", "a/b"], N // 3),
    }
)


@pytest.mark.parametrize(
    ("features", "want"),
    [
        (["age", "pix1*"], ["age", "pix1", "pix10", "pix11"]),
        (["pix?", "!pix[0-8]"], ["pix9"]),
        (["!pix*", "!year", "!city"], ["age", "odd[1]"]),
        (["odd[1]", "age"], ["odd[1]", "age"]),
        (["pix2", "pix*", "!pix1*"], ["pix2", "pix0", *(f"pix{j}" for j in range(3, 10))]),
    ],
)
def test_features_are_named_by_patterns_and_by_what_is_left_out(features, want):
    source = open_source(ROWS, "y", features=features)
    assert list(source.feature_names) == want


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["pixel*"], 'features= has "pixel\\*", which fits no feature'),
        (["age", "!pix1"], 'features= has "!pix1", which fits no feature'),
        (["agee"], 'there is no column "agee"; did you mean "age"'),
        (["age", "age"], 'lists "age" 2 times'),
        (["y"], "which is the target"),
        (["!pix*", "!age", "!odd*", "!year", "!city"], "there are no features"),
    ],
)
def test_patterns_that_fit_nothing_are_named(features, message):
    with pytest.raises(DataError, match=message):
        open_source(ROWS, "y", features=features)


@pytest.fixture
def lake(tmp_path):
    """A folder of files in folders that name year and city."""
    named = pa.schema([("year", pa.int32()), ("city", pa.string())])
    folders = pads.partitioning(named, flavor="hive")
    pads.write_dataset(ROWS, tmp_path / "lake", format="parquet", partitioning=folders)
    return tmp_path / "lake"


def test_folders_name_columns_that_are_features_only_when_asked_for(lake):
    assert "year" not in open_source(lake, "y").feature_names
    source = open_source(lake, "y", features=["age", "year"])
    got = np.concatenate(
        [np.concatenate([part.matrix() for part in c.parts], axis=1) for c in source.chunks(None)]
    )
    whole = pads.dataset(lake, partitioning="hive").to_table(columns=["age", "year"])
    want = np.stack([whole["age"].to_numpy(), whole["year"].to_numpy()], axis=1)
    assert_array_equal(np.sort(got, axis=0), np.sort(want, axis=0))
    assert len(open_source(lake, "y", features=["pix*"]).feature_names) == 12


def test_folders_name_classes_weights_and_categories(lake, tmp_path):
    model = fastsoftmax.train(
        lake, "city", features=["age"], weight="year", epochs=1, shuffle="off"
    )
    assert list(model.classes) == ["Rome", "São Paulo", "a/b"]
    report = fastsoftmax.evaluate(model, lake)
    assert report.rows == N
    told = fastsoftmax.train(lake, "y", features=["city", "age"], categorical=["city"], epochs=1)
    assert told.feature_names == ("city=Rome", "city=São Paulo", "city=a/b", "age")
    model.save(tmp_path / "m.safetensors")
    out = tmp_path / "out.parquet"
    command = ["predict", str(tmp_path / "m.safetensors"), str(lake), "-o", str(out)]
    assert main([*command, "--keep", "year,city,age"]) == 0
    kept = pq.read_table(out)
    assert kept.schema.field("year").type == pa.int64()
    assert sorted(set(kept["city"].to_pylist())) == ["Rome", "São Paulo", "a/b"]
    assert kept.num_rows == N


def test_a_null_in_a_folders_name_is_a_null(tmp_path):
    for name in ("k=1", "k=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / name).mkdir()
        pq.write_table(ROWS.slice(0, 6).select(["age", "y"]), tmp_path / name / "x.parquet")
    with pytest.raises(
        DataError,
        match=r'k=__HIVE_DEFAULT_PARTITION__/x.parquet, row group 0, row 0: column "k" is null',
    ):
        fastsoftmax.train(tmp_path, "y", features=["k", "age"], epochs=1)
    model = fastsoftmax.train(tmp_path, "y", features=["k", "age"], nulls="zero", epochs=1)
    assert model.feature_names == ("k", "age")


def test_a_file_in_no_such_folder_is_named(lake):
    pq.write_table(ROWS.select(["age", "y"]), lake / "stray.parquet")
    with pytest.raises(DataError, match=r'stray.parquet: there is no column "year"'):
        fastsoftmax.train(
            [lake / "year=2023", lake / "stray.parquet"], "y", features=["year", "age"]
        )


def test_all_differences_between_files_are_listed(tmp_path):
    pq.write_table(ROWS.select(["age", "pix0", "y"]), tmp_path / "a.parquet")
    pq.write_table(ROWS.select(["age", "y"]), tmp_path / "b.parquet")
    other = ROWS.select(["pix0", "y"]).append_column("age", ROWS["age"].cast(pa.float32()))
    pq.write_table(other, tmp_path / "c.parquet")
    with pytest.raises(DataError) as caught:
        open_source(tmp_path, "y")
    said = str(caught.value)
    assert "the files differ in 2 places" in said
    assert 'b.parquet: there is no column "pix0"' in said
    assert 'c.parquet: column "age" is of type float, but int64 in the first file' in said


def test_many_differences_are_counted(tmp_path):
    pq.write_table(ROWS, tmp_path / "a.parquet")
    pq.write_table(ROWS.select(["y", "year", "city"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"differ in 14 places.* And 2 more\.$"):
        open_source(tmp_path, "y", features=["pix*", "age", "odd[1]"])


def test_a_file_that_changes_between_epochs_is_an_error(tmp_path):
    for name in ("a", "b"):
        pq.write_table(table(RNG.normal(size=(50, 3))), tmp_path / f"{name}.parquet")

    def meddle(progress):
        if progress.finished and progress.epoch == 1:
            pq.write_table(table(RNG.normal(size=(51, 3))), tmp_path / "b.parquet")

    with pytest.raises(DataError, match=r"b\.parquet: the file changed during the run"):
        fastsoftmax.train(
            tmp_path, "y", epochs=3, shuffle_window=20, shuffle="window", cache="off", report=meddle
        )


def test_a_local_uri_is_the_path(lake):
    uri = lake.as_uri()
    want = fastsoftmax.train(lake, "y", features=["age", "year"], epochs=1)
    got = fastsoftmax.train(uri, "y", features=["age", "year"], epochs=1)
    assert_array_equal(got.coef, want.coef)
    assert got.record == want.record
    one = fastsoftmax.train(f"{uri}/year=2023/*/*.parquet", "y", features=["age"], epochs=1)
    assert one.record["rows"] == N // 2


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("file:///no/such/file.parquet", "/no/such/file.parquet: there is no such file"),
        ("gopher://x/y.parquet", "gopher://x/y.parquet: it cannot be reached"),
    ],
)
def test_a_uri_that_leads_nowhere_is_named(uri, message):
    with pytest.raises(DataError, match=message):
        fastsoftmax.train(uri, "y")


@pytest.fixture(scope="module")
def bucket():
    """The URI of a bucket on a server that speaks S3, with its options."""
    fs = pytest.importorskip("pyarrow.fs")
    moto = pytest.importorskip("moto.server")
    if not hasattr(fs, "S3FileSystem"):
        pytest.skip("this pyarrow has no S3")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    system = fs.S3FileSystem(
        access_key="k", secret_key="s", region="us-east-1", scheme="http",
        endpoint_override=f"127.0.0.1:{port}", allow_bucket_creation=True,
    )  # fmt: skip
    system.create_dir("rows")
    for j in range(3):
        with system.open_output_stream(f"rows/part={j}/x.parquet") as file:
            pq.write_table(ROWS.slice(20 * j, 20), file)
    with (
        system.open_output_stream("rows/feather/x.arrow") as file,
        pa.ipc.new_file(file, ROWS.schema) as writer,
    ):
        writer.write_table(ROWS)
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    yield "s3://k:s@rows", options, system
    server.stop()


def test_an_object_store_is_read_by_uri(bucket, tmp_path):
    start, options, system = bucket
    pq.write_table(ROWS, tmp_path / "x.parquet", row_group_size=20)
    plan = {"features": ["age", "pix1"], "epochs": 2, "shuffle": "off", "learning_rate": 0.01}
    want = fastsoftmax.train(tmp_path / "x.parquet", "y", **plan)
    for path in (f"{start}/part=*?{options}", f"{start}/feather/x.arrow?{options}"):
        got = fastsoftmax.train(path, "y", **plan, shuffle_window=30)
        assert_array_equal(got.coef, want.coef)
    uris = [f"{start}/part={j}/x.parquet?{options}" for j in range(3)]
    got = fastsoftmax.train(uris, "y", **plan | {"features": ["age", "part"]})
    assert got.feature_names == ("age", "part")
    names = [f"part={j}/x.parquet" for j in range(3)]
    assert [file["name"] for file in got.record["data"]] == names
    assert got.predict(uris).shape == (N,)
    with pytest.raises(DataError, match=r"^s3://rows/none.parquet: there is no such file"):
        fastsoftmax.train(f"{start}/none.parquet?{options}", "y")
    with pytest.raises(DataError, match=r'^s3://rows/part=0/x.parquet: there is no column "agee"'):
        fastsoftmax.train(uris[0], "y", features=["agee"])

    def meddle(progress):
        if progress.finished:
            with system.open_output_stream("rows/part=1/x.parquet") as file:
                pq.write_table(ROWS.slice(0, 21), file)

    with pytest.raises(DataError, match=r"s3://rows/part=1/x.parquet: the file changed during"):
        fastsoftmax.train(uris, "y", **plan, shuffle_window=30, cache="off", report=meddle)

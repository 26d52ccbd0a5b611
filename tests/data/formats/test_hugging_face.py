"""Folders that Hugging Face's datasets saves are read as the data sets that they are."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

import fastsoftmax
from fastsoftmax import DataError

GIVEN = {"shuffle": "off", "learning_rate": 0.01, "epochs": 1}


def saved(folder, **more):
    """Write what save_to_disk writes of 40 rows in two shards, the second one first by its name."""
    folder.mkdir()
    names = ["b.arrow", "a.arrow"]
    for shard, name in enumerate(names):
        rows = pa.table({"v": [[float(i), shard] for i in range(20)], "label": [0, 1] * 10})
        with pa.ipc.new_stream(str(folder / name), rows.schema) as writer:
            writer.write_table(rows)
    state = {"_data_files": [{"filename": name} for name in names], **more}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.mark.filterwarnings("ignore:after epoch")
def test_the_files_are_read_in_the_order_of_the_data_set(tmp_path):
    model = fastsoftmax.train(saved(tmp_path / "data"), "label", **GIVEN)
    assert [file["name"] for file in model.record["data"]] == ["b.arrow", "a.arrow"]
    assert model.record["rows"] == 40


@pytest.mark.filterwarnings("ignore:after epoch")
def test_a_cached_data_set_has_no_list_of_its_files(tmp_path):
    folder = saved(tmp_path / "data")
    (folder / "state.json").unlink()
    assert fastsoftmax.train(folder, "label", **GIVEN).record["rows"] == 40


def test_a_folder_of_splits_asks_for_one(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match=r"the splits train, test. Name one, as .*train\."):
        fastsoftmax.train(tmp_path, "label")


def test_a_selection_is_not_taken_for_all_rows(tmp_path):
    folder = saved(tmp_path / "data", _indices_data_files=[{"filename": "i.arrow"}])
    with pytest.raises(DataError, match=r"a selection .*Call flatten_indices\(\)"):
        fastsoftmax.train(folder, "label")


def test_a_damaged_list_of_files_is_refused(tmp_path):
    folder = saved(tmp_path / "data")
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state.json cannot be read .* Save it again"):
        fastsoftmax.train(folder, "label")

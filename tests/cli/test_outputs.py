"""A trained model is the work of days: it is written somewhere, or the reason is told."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fastsoftmax.cli.outputs import make_folder, save
from fastsoftmax.errors import OptionError, SaveError
from fastsoftmax.model.model import load
from tests.models import make_model


def test_a_model_is_written_where_it_was_asked_for(tmp_path):
    save(make_model(), str(tmp_path / "m"))
    assert load(tmp_path / "m").n_features == 4


def test_a_model_that_cannot_be_written_there_is_written_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SaveError, match=r"The model was saved to \S+ instead\.$") as error:
        save(make_model(), str(tmp_path / "missing" / "m"))
    second = Path(str(error.value).split()[-2])
    assert second.parent.parent == tmp_path
    assert load(second).n_features == 4


def test_where_nothing_can_be_written_the_first_reason_is_told(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SaveError) as error:
        save(make_model(), str(tmp_path / "m"))
    assert "instead" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_models_is_made_or_refused(tmp_path):
    make_folder(str(tmp_path / "a" / "b"))
    make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"cannot be made: .*; give another"):
        make_folder(str(tmp_path / "file" / "b"))

"""A file is written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest

from fastsoftmax.errors import OptionError, SaveError
from fastsoftmax.files import check_output, write_file
from fastsoftmax.model.model import load
from tests.faults import Faults, fail_each
from tests.models import make_model


def names(folder) -> list[str]:
    """Return what is in a folder, hidden names too."""
    return sorted(os.listdir(folder))


def test_a_file_is_written(tmp_path):
    write_file(tmp_path / "a", [b"one ", memoryview(b"two")])
    assert (tmp_path / "a").read_bytes() == b"one two"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), ValueError("x")])
def test_a_failure_while_writing_leaves_the_old_file_whole(tmp_path, failure):
    def pieces():
        yield b"half"
        raise failure

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises((SaveError, ValueError)):
        write_file(tmp_path / "a", pieces())
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_the_end_leaves_the_old_file_whole(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(5, "Input/output error")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(SaveError, match="a could not be written: Input/output error"):
        write_file(tmp_path / "a", [b"new"])
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


NUMBERS = [errno.ENOSPC, errno.EIO, errno.EACCES]


@pytest.mark.parametrize("number", NUMBERS, ids=os.strerror)
def test_whatever_step_fails_a_whole_file_stands_there(tmp_path, number):
    contents = [b"old" * 10_000, b"new" * 10_000]

    def save():
        contents.reverse()  # each time the other
        write_file(tmp_path / "a", [contents[0][:9], contents[0][9:]])

    failed = fail_each(
        tmp_path, save, lambda: (tmp_path / "a").read_bytes() in contents, number, raised=SaveError
    )
    assert failed == [
        "open", "close", "open", "write", "write", "close", "open", "fsync", "close", "replace",
        "open", "fsync of a folder", "close",
    ]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=os.strerror)
def test_whatever_step_fails_a_model_loads(tmp_path, number):
    models = [make_model(seed=0), make_model(seed=1)]

    def save():
        models.reverse()
        models[0].save(tmp_path / "m")

    def loads():
        return any((load(tmp_path / "m").coef == model.coef).all() for model in models)

    assert len(fail_each(tmp_path, save, loads, number, raised=SaveError)) > 10


def test_a_failure_after_the_new_file_stands_there_says_so(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    faults = Faults(12, errno.EIO)
    with faults.injected(), pytest.raises(SaveError, match="The new file stands there whole"):
        write_file(tmp_path / "a", [b"n", b"ew"])
    assert faults.failed == "fsync of a folder"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_file_system_that_cannot_flush_folders_is_no_failure(tmp_path):
    faults = Faults(12, errno.EINVAL)
    with faults.injected():
        write_file(tmp_path / "a", [b"n", b"ew"])
    assert faults.failed == "fsync of a folder"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_an_interrupt_leaves_no_partial_file(tmp_path):
    def interrupted():
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", interrupted())
    assert names(tmp_path) == []


def test_a_killed_process_leaves_the_old_file_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    code = (
        "import os, sys; from fastsoftmax.files import replacement\n"
        "with replacement(sys.argv[1]) as partial:\n"
        "    partial.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert done.returncode == -9
    assert (tmp_path / "a").read_bytes() == b"old"
    # What is left cannot be taken for data: readers of folders skip hidden names.
    assert all(name == "a" or name.startswith(".") for name in names(tmp_path))


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    done = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)

        def spy(*arguments, step=step, original=original):
            done.append(step)
            return original(*arguments)

        monkeypatch.setattr(os, step, spy)
    write_file(tmp_path / "a", [b"new"])
    assert done == ["fsync", "replace", "fsync"]


def test_the_mode_of_a_file_that_is_replaced_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o640)
    write_file(tmp_path / "a", [b"new"])
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to("a")
    write_file(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SaveError, match="not a regular file"):
        write_file(tmp_path / "pipe", [b"new"])
    with pytest.raises(OptionError, match="not a regular file"):
        check_output(tmp_path / "pipe", [])


def test_an_output_in_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OptionError, match="does not exist"):
        check_output(tmp_path / "no" / "a", [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a\0b", "null byte"), ("x" * 300, "name too long")],
    ids=["a null byte", "too long a name"],
)
def test_an_output_that_no_file_can_be_called_is_refused(tmp_path, name, reason):
    with pytest.raises(OptionError, match=rf"(?i)cannot be a file: .*{reason}"):
        check_output(f"{tmp_path}/{name}", [])


def test_an_output_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(OptionError, match="is a folder"):
        check_output(tmp_path, [])


def test_an_output_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OptionError, match="not writable"):
        check_output(tmp_path / "a", [])
    (tmp_path / "a").touch()
    with pytest.raises(OptionError, match="write-protected"):
        check_output(tmp_path / "a", [])


def test_an_output_that_is_an_input_is_refused_under_any_name(tmp_path):
    data = tmp_path / "data.parquet"
    data.touch()
    (tmp_path / "symbolic").symlink_to(data)
    (tmp_path / "hard").hardlink_to(data)
    for output in (data, tmp_path / "symbolic", tmp_path / "hard"):
        for given in (str(data), str(tmp_path / "*.parquet")):
            with pytest.raises(OptionError, match="also an input"):
                check_output(output, [given])
    check_output(tmp_path / "other", [str(data)])


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_an_output_that_stands_in_an_input_folder_by_a_link_is_refused(tmp_path, link):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "out").touch()
    getattr(tmp_path / "data" / "deep" / "part", link)(tmp_path / "out")
    with pytest.raises(OptionError, match="also an input"):
        check_output(tmp_path / "out", [str(tmp_path / "data")])


@pytest.mark.parametrize(
    ("name", "given"),
    [("deep/a", "{}/**/a"), ("b[1]", "{}/b[1]"), ("c d", "file://{}/c%20d")],
    ids=["at any depth", "a name that looks like a pattern", "a URI"],
)
def test_an_input_is_known_however_it_is_named(tmp_path, name, given):
    (tmp_path / "deep").mkdir()
    (tmp_path / name).touch()
    (tmp_path / "b1").touch()
    with pytest.raises(OptionError, match="also an input"):
        check_output(tmp_path / name, [given.format(tmp_path)])
    check_output(tmp_path / "b1", [given.format(tmp_path)])


def test_an_output_inside_an_input_folder_is_refused(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    for output in ("data/a", "data/deep/a", "link/a"):
        with pytest.raises(OptionError, match="lies in the input folder"):
            check_output(tmp_path / output, [str(tmp_path / "data")])
    check_output(tmp_path / "a", [str(tmp_path / "data")])

"""Writing that fails at the Nth step, for every N: what was saved before, or now, is there."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Faults:
    """The steps of writing files, the Nth of which fails once with an error of this number.

    steps: what was done so far: open, write, flush, close, fsync, fsync of a folder, replace.
    """

    def __init__(self, fail_at: int, number: int) -> None:
        self.fail_at, self.number = fail_at, number
        self.steps: list[str] = []

    @property
    def failed(self) -> str | None:
        """The step that failed, or None."""
        return self.steps[self.fail_at - 1] if len(self.steps) >= self.fail_at else None

    def step(self, name: str) -> None:
        """Count a step, and let it fail if it is the Nth."""
        self.steps.append(name)
        if len(self.steps) == self.fail_at:
            raise OSError(self.number, os.strerror(self.number))

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Let the steps of all writing inside the `with` be counted, and the Nth fail."""
        os_open, os_close, fsync, replace = os.open, os.close, os.fsync, os.replace
        plain_open = builtins.open

        def failing_open(*args: Any, **kwargs: Any) -> int:
            self.step("open")
            return os_open(*args, **kwargs)

        def failing_close(descriptor: int) -> None:
            os_close(descriptor)  # as Linux does: it is closed, whatever close returns
            self.step("close")

        def failing_fsync(descriptor: int) -> None:
            is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
            self.step("fsync of a folder" if is_folder else "fsync")
            fsync(descriptor)

        def failing_replace(*args: Any, **kwargs: Any) -> None:
            self.step("replace")
            replace(*args, **kwargs)

        def failing_file(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not set(mode) & set("wax+"):
                return plain_open(file, mode, *args, **kwargs)
            self.step("open")
            return _File(plain_open(file, mode, *args, **kwargs), self)

        os.open, os.close, os.fsync, os.replace = (
            failing_open, failing_close, failing_fsync, failing_replace,
        )  # fmt: skip
        builtins.open = io.open = failing_file
        try:
            yield
        finally:
            os.open, os.close, os.fsync, os.replace = os_open, os_close, fsync, replace
            builtins.open = io.open = plain_open


class _File:
    """A file that is written, whose steps are counted."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: Any) -> int:
        self._faults.step("write")
        return self._file.write(data)

    def flush(self) -> None:
        self._faults.step("flush")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._faults.step("close")


def fail_each(
    folder: Path,
    save: Callable[[], Any],
    loads: Callable[[], bool],
    number: int,
    *,
    raised: type[BaseException],
) -> list[str]:
    """Save again and again, the 1st, 2nd, ... step failing, until none fails; return the steps.

    After each failure, which `save` must tell by an exception of the class `raised`, `loads` must
    say that there is something whole, and the names in `folder` must be as they are after a save.
    """
    save()
    assert loads()
    names = sorted(os.listdir(folder))
    failed = []
    while True:
        faults = Faults(len(failed) + 1, number)
        error: BaseException | None = None
        with faults.injected():
            try:
                save()
            except raised as caught:
                error = caught
        step = faults.failed
        assert loads(), step
        assert sorted(os.listdir(folder)) == names, step
        assert (error is None) == (step is None), step
        if step is None:
            return failed
        failed.append(step)

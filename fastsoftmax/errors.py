"""The only place for exceptions: each is a sentence a user can act on.

Every exception says what is wrong, where, and what to do; `exit_code` is what the command line
returns for it.
"""

from typing import Any


class FastsoftmaxError(Exception):
    """Base of every error that fastsoftmax raises on purpose."""

    exit_code = 1


class OptionError(FastsoftmaxError, ValueError):
    """An option has a value it cannot have, or two options contradict each other."""

    exit_code = 2


class UnknownOptionError(OptionError, TypeError):
    """An option that does not exist; the message names the nearest one that does."""


class MissingExtraError(FastsoftmaxError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    exit_code = 2


class DataError(FastsoftmaxError, ValueError):
    """The data cannot be used as they are; the message names file, row group, row and column."""

    exit_code = 3


class ModelFileError(DataError):
    """A file is not the model or checkpoint it should be, or a damaged one."""


class DivergedError(FastsoftmaxError, ArithmeticError):
    """Training left the finite numbers; the message names a step size that would have been safe."""

    exit_code = 4


class SaveError(FastsoftmaxError, OSError):
    """A result could not be written; what stood there before is untouched."""


class WorkerLostError(FastsoftmaxError):
    """Workers were lost again and again; the message says how to go on."""


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted; `model` is what it had learnt by then."""

    def __init__(self, model: Any) -> None:
        super().__init__("training was interrupted; .model is what it had learnt by then")
        self.model = model


class NotConverged(UserWarning):
    """A fit ended by a limit of passes or of time, not because little was left to gain."""


class StoppedError(FastsoftmaxError):
    """A run ended by a signal before it was done; the message says what was kept."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number

"""The only place where a process that we began waits for tasks and carries them out."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

from fastsoftmax.engines.mapped import SMALL, Mapped
from fastsoftmax.engines.tasks import Outcome, carry_out, failed, this_worker
from fastsoftmax.errors import OptionError


def serve(descriptor: int) -> None:
    """Carry out what comes along a connection, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began us ends us
    connection = Connection(descriptor)
    this_worker()  # what it imports takes a while: now, and not when the first task is there
    last: Mapped | None = None  # what was sent last, until whoever asked has it
    while True:
        try:
            call, args = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as error:
            outcome = failed(error)
        else:
            outcome = carry_out(call, *args)
            del args
        if last is not None:
            last.close()
        try:
            last = _send(connection, outcome)
        except OSError:
            return


def _send(connection: Connection, outcome: Outcome) -> Mapped | None:
    """Send an outcome, or why it cannot be sent; return what holds it where it is large."""
    try:
        mapped = Mapped(outcome, once=True)
    except OptionError as error:
        connection.send(failed(error))
        return None
    if mapped.nbytes < SMALL:
        mapped.close()
        connection.send(outcome)
        return None
    connection.send(mapped)
    return mapped

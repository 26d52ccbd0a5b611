"""The only place where a process that we began waits for tasks and carries them out."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection

from fastsoftmax.engines.tasks import Outcome, carry_out, failed, this_worker


def serve(descriptor: int) -> None:
    """Carry out what comes along a connection, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began us ends us
    connection = Connection(descriptor)
    this_worker()  # what it imports takes a while: now, and not when the first task is there
    while True:
        try:
            call, args = connection.recv()
        except (EOFError, OSError):
            return
        except Exception as error:
            outcome = failed(error)
        else:
            outcome = carry_out(call, *args)
        if not _sent(connection, outcome):
            return


def _sent(connection: Connection, outcome: Outcome) -> bool:
    """Send an outcome, or why it cannot be sent; return whether there is anyone to send it to."""
    try:
        connection.send(outcome)
    except OSError:
        return False
    except Exception as error:
        connection.send(failed(error))
    return True

"""The only place where the process of a command begins and ends: `python -m fastsoftmax` as well.

Modules are most of what a command makes, and all of them stay. To look through them for garbage
takes longer than a short run does.
"""

import gc
import sys

SELDOM = 300  # times as many objects as usual are made before Python looks for garbage


def run() -> int:
    """Run the command that this process was started for, and return its exit code."""
    usual = gc.get_threshold()
    gc.set_threshold(SELDOM * usual[0], *usual[1:])
    from fastsoftmax.cli.main import main

    code = main()
    gc.freeze()  # the interpreter would look through all that is left as it ends
    return code


if __name__ == "__main__":
    sys.exit(run())

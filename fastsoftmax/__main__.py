"""`python -m fastsoftmax` is the command `fastsoftmax`."""

import sys

from fastsoftmax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

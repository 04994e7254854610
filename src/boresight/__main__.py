"""`python -m boresight` is `boresight`."""

import sys

from boresight.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tfavmae` is the `tfavmae` command."""

import sys

from tfavmae.cli import main

if __name__ == "__main__":
    sys.exit(main())

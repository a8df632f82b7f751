"""Entry point of `python -m tfavmae`, the same as the `tfavmae` command."""

import sys

from tfavmae.cli import main

if __name__ == "__main__":
    sys.exit(main())

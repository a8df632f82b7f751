"""Entry point of `python -m tfavmae`, the same as the `tfavmae` command."""

import sys

if __name__ == "__main__":
    try:
        from tfavmae.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())

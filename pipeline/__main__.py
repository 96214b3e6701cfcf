"""`python -m pipeline` and the command `featurecache`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    from pipeline.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

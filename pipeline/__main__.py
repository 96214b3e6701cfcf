"""`python -m featurecache` and the command `featurecache`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from featurecache.base.startup import begin_command_process
        from featurecache.cli.stopping import stoppable

        begin_command_process()
        with stoppable() as stops:
            from featurecache.cli.main import run

            return stops.code(run(sys.argv[1:]))
    except KeyboardInterrupt as stop:  # before there was a command
        from featurecache.base.exits import INTERRUPTED

        sys.stderr.write("\nStopped.\n")
        return int(getattr(stop, "exit_code", INTERRUPTED))


if __name__ == "__main__":
    sys.exit(main())

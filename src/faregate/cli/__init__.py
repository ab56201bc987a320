"""The command line: one module per command, loaded only when it is asked for."""

import sys


def main() -> None:
    """The ``faregate`` program."""
    from faregate.cli.main import run

    sys.exit(run(sys.argv[1:]))

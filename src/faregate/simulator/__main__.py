"""Runs the simulator as its own process: ``python -m faregate.simulator --port 0 --truth FILE``.

Prints one line of JSON with its port when it is ready; ends on SIGTERM.
"""

import argparse
import sys
from pathlib import Path

from faregate.simulator.server import run


def main() -> int:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="faregate.simulator", description="A provider simulator on loopback.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--script", type=Path, help="JSON list of rules")
    parser.add_argument("--truth", type=Path, help="the truth log; continued if it exists")
    parser.add_argument("--key", action="append", default=[], help="accept only this credential; may be repeated")
    given = parser.parse_args()
    try:
        run(given.host, given.port, given.script, given.truth, keys=given.key)
    except (OSError, ValueError) as error:
        print(f"faregate.simulator: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

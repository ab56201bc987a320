"""Progress is for people at a terminal: pipes and logs see nothing of it."""

import os
import pty
import subprocess
import sys

SCRIPT = """
from faregate.cli.progress import progress, waiting
with progress("apply") as told:
    told(3, 3)
with waiting("writing the backup"):
    pass
"""


def test_a_terminal_sees_a_bar() -> None:
    """On standard error, so that a result can be piped away beside it."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True
        )
        seen = os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)

    assert b"apply" in seen
    assert done.stdout == b""


def test_a_pipe_sees_nothing() -> None:
    """Neither on standard output nor on standard error."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == (b"", b"")

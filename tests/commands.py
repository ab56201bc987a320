"""Runs commands of the command line in this process or as a program, and keeps what they said."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from faregate.cli.main import run
from faregate.config.folder import DataFolder, take_lock


class Told(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON value on standard output of a command that went well."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def command(*words: object, typed: str = "") -> Told:
    """Run one command in this process; ``typed`` is what it finds on standard input."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([str(word) for word in words])
    finally:
        sys.stdin = before
    return Told(code, out.getvalue(), err.getvalue())


def program(folder: Path, environment: Mapping[str, str], *words: object) -> Told:
    """Run one command as a program of its own in ``folder``, with nothing but ``environment`` of ours."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("faregate")), *map(str, words)],
        cwd=folder, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    return Told(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def served(app: Any, *, socket_in: Path | None = None, locked: bool = False) -> Iterator[str]:
    """Serve an app on loopback, or on the console's socket of a data folder that is locked meanwhile; gives its URL."""
    lock = None
    if socket_in is not None and not locked:
        lock = take_lock(DataFolder(socket_in))
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, uds=str(DataFolder(socket_in).console_socket) if socket_in else None,
        log_config=None, lifespan="off", ws="none", access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = 0 if socket_in else server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
        if lock is not None:
            lock.release()

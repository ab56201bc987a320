"""A whole installation for tests that look from the outside: a real simulator and a real ``faregate serve``.

Everything runs in processes of its own on loopback, in a folder of the test's; nothing is patched and nothing is read
but what users could read. Orders go through the command line (``cli``), or, where many are needed, through the admin
API on the data folder's socket (``admin``), which is what the command line itself speaks.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from faregate.assembly.clock import SystemClock
from faregate.config.folder import DataFolder
from faregate.config.secrets import secrets_of
from faregate.storage.sqlite.opening import open_books

#: The credential that the gateway sends upstream. It must never be seen by a caller.
UPSTREAM_SECRET = "sk-upstream-CANARY-7f3a9c51d2e84b60"
START_SECONDS = 40.0
STOP_SECONDS = 45.0
CLI_SECONDS = 60.0
#: How long a call's record may take into the books; promised are 5 s.
VISIBLE_SECONDS = 15.0

#: The simulator as two more providers; what they offer is the test's to say.
TWO_PROVIDERS = """\
  - name: sim
    kind: openai
    base_url: http://127.0.0.1:{simulator_port}/v1
    api_key: {secret}
    lookup: {{path: "{lookup}"}}
  - name: sim-azure
    kind: azure_openai
    base_url: http://127.0.0.1:{simulator_port}
    api_key: {secret}
    api_version: "2024-10-21"
"""

OPENAI_AND_AZURE = f"providers:\n{TWO_PROVIDERS}"

CONFIG = (
    OPENAI_AND_AZURE
    + """\
    lookup: {{path: "{lookup}"}}
# Errors are provoked on purpose, one after the other, and each shall be seen.
breaker: {{enabled: false}}
deployments:
  - {{name: azure-sim, provider: sim-azure, deployment: sim-1, model: sim-1}}
models:
  - {{name: sim-1, to: [sim/sim-1], max_output_tokens: 4096}}
  - {{name: sim-fast, to: [sim/sim-fast], max_output_tokens: 4096}}
  - {{name: sim-slow, to: [sim/sim-slow], max_output_tokens: 4096}}
  - {{name: unpriced, to: [sim/unpriced], max_output_tokens: 4096}}
pricing:
  unknown: refuse
  overrides:
{prices}"""
)

LOOKUP = "/simulator/truth/{id}"

#: Dollars per million input and output tokens; none of them divides evenly, so that a rounding slip shows.
PRICES = {"sim-1": ("2.50", "10"), "sim-fast": ("0.15", "0.6"), "sim-slow": ("1.1", "4.4"), "sim-embed": ("0.02", "0")}


def price_lines(prices: Mapping[str, tuple[str, str]] = PRICES) -> str:
    """The price overrides of a configuration."""
    line = '    - {{provider: {}, model: {}, unit: {}, per: 1000000, price: "{}"}}\n'
    return "".join(
        line.format(provider, model, unit, price)
        for provider in ("sim", "sim-azure")
        for model, both in prices.items()
        for unit, price in zip(("input_tokens", "output_tokens"), both, strict=True)
    )


def nanos(dollars: str) -> int:
    """Decimal dollars as integer nano-dollars, exactly."""
    whole, _, part = dollars.lstrip("-").partition(".")
    amount = int(whole or 0) * 10**9 + int((part + "000000000")[:9])
    return -amount if dollars.startswith("-") else amount


def free_port() -> int:
    """A port nobody listens on, below the range that the system hands out for outgoing connections."""
    while True:
        port = random.randint(11_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@cache
def _empty_books() -> Path:
    """Books without a row: to make them takes a start longer than all the rest of it, so it is done once a process."""
    path = Path(tempfile.mkdtemp(prefix="faregate-books-")) / "books.sqlite3"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    open_books(path, SystemClock()).close()
    return path


class Refused(AssertionError):
    """A command or an order was refused where the test counted on it; an order with this status."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class Installation:
    """Start with ``with Installation(folder) as running:``; everything is ended at the end of the block.

    ``config`` is the text of a ``faregate.yaml``; ``{simulator_port}``, ``{secret}``, ``{lookup}`` and ``{prices}``
    are filled in. ``limits`` are set at the start, each a mapping of the words of ``limit set``. Without ``serve`` only
    the simulator runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: str = CONFIG,
        limits: Iterable[Mapping[str, str]] = (),
        script: Sequence[Mapping[str, Any]] = (),
        prices: Mapping[str, tuple[str, str]] = PRICES,
        serve: bool = True,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.truth_file = folder / "truth.jsonl"
        self.simulator_port = free_port()
        self.gateway_port = free_port()
        self.console_port = free_port()
        self._config = config
        self._limits = tuple(limits)
        self._script = script
        self._prices = prices
        self._wanted = serve
        self._serve: subprocess.Popen[bytes] | None = None
        self._simulator: subprocess.Popen[bytes] | None = None
        self._logs: list[IO[bytes]] = []

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.start_simulator()
            if self._wanted:
                self.start()
            for words in self._limits:
                self.limit(**words)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End whatever still runs."""
        if self._serve is not None:
            self.kill_all()
        if self._simulator is not None:
            self._simulator.kill()
            self._simulator.wait()
            self._simulator = None
        for log in self._logs:
            log.close()
        self._logs.clear()

    def start_simulator(self) -> None:
        """Start the provider simulator; it is never killed by the tests, so that its truth stands."""
        command = [sys.executable, "-m", "faregate.simulator", "--port", str(self.simulator_port)]
        self._simulator = self._start([*command, "--truth", str(self.truth_file)], "simulator.log")
        self._wait(lambda: self.simulator("GET", "state") is not None, "the simulator", self._simulator)
        if self._script:
            self.simulator("POST", "script", self._script)

    def start(self) -> None:
        """Start ``faregate serve`` and wait until it is ready."""
        config = self.folder / "faregate.yaml"
        config.touch(mode=0o600)  # it holds a secret, and one that others may read is refused
        config.write_text(
            self._config.format(
                simulator_port=self.simulator_port,
                secret=UPSTREAM_SECRET,
                lookup=LOOKUP,
                prices=price_lines(self._prices),
            )
        )
        if not self.data.exists():
            # As an installation has them that was started before; the first start of all is tested by itself.
            self.data.mkdir(mode=0o700)
            secrets_of(DataFolder(self.data), os.urandom)
            shutil.copyfile(_empty_books(), DataFolder(self.data).books)
            DataFolder(self.data).books.chmod(0o600)
        command = [
            *_program(), "serve", "--config", str(config), "--data", str(self.data),
            "--gateway", f"127.0.0.1:{self.gateway_port}", "--console", f"127.0.0.1:{self.console_port}",
        ]  # fmt: skip
        self._serve = self._start(command, "serve.log")
        self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until the gateway accepts calls."""
        assert self._serve is not None
        self._wait(lambda: self._ready(self.gateway_url + "/health/ready"), "faregate", self._serve, seconds)
        # Calls are taken before the console is there, which orders go to.
        self._wait(self._takes_orders, "the console", self._serve, seconds)

    def _takes_orders(self) -> bool:
        """Whether the console listens; one that was killed leaves its socket's file behind.

        Raises:
            OSError: it does not.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(DataFolder(self.data).console_socket))
        return True

    def stop(self) -> int:
        """Ask ``serve`` to stop, as Ctrl-C does, and return its exit code."""
        assert self._serve is not None
        self._serve.send_signal(signal.SIGTERM)
        code = self._serve.wait(STOP_SECONDS)
        self._serve = None
        return code

    def kill_gate(self) -> int:
        """``kill -9`` the data plane; the supervisor starts another. Returns the pid of the killed one."""
        pid = self.gate_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_console(self) -> int:
        """``kill -9`` the console, wherever its projection stands. Returns the pid of the killed one."""
        pid = self.console_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_all(self) -> None:
        """``kill -9`` the supervisor and both planes at once, as a crash of the machine would."""
        assert self._serve is not None
        for pid in _tree(self._serve.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._serve.wait()
        self._serve = None

    def restart(self) -> None:
        """Stop orderly, where something runs, and start again."""
        if self._serve is not None:
            self.stop()
        self.start()

    # -- where things are ----------------------------------------------------------------------------------------------

    @property
    def gateway_url(self) -> str:
        """The data plane's base URL."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def console_url(self) -> str:
        """The console's base URL."""
        return f"http://127.0.0.1:{self.console_port}"

    def process(self) -> subprocess.Popen[bytes]:
        """The running ``serve``, for signals and for its exit code."""
        assert self._serve is not None
        return self._serve

    def gate_pid(self) -> int:
        """The pid of the data plane's process."""
        return self._child("gate")

    def console_pid(self) -> int:
        """The pid of the console's process."""
        return self._child("console")

    def log(self) -> str:
        """What ``serve`` and its children wrote so far."""
        return (self.folder / "serve.log").read_text(errors="replace")

    # -- orders --------------------------------------------------------------------------------------------------------

    def cli(self, *words: str) -> Any:
        """Run one command with ``--json`` on this installation and return what it printed.

        Raises:
            Refused: it did not exit with 0; the text is its standard error.
        """
        done = self.cli_raw(*words, "--json")
        if done.returncode != 0:
            raise Refused(f"faregate {' '.join(words)} exited {done.returncode}: {done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def cli_raw(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command on this installation, whatever comes of it."""
        return subprocess.run(
            [*_program(), *words, "--data", str(self.data)],
            env=_environment(), cwd=self.folder, capture_output=True, text=True, timeout=CLI_SECONDS, check=False,
        )  # fmt: skip

    def key(self, name: str = "caller", **words: str) -> dict[str, Any]:
        """Create a key; ``words`` are the options of ``key create`` (``team="research"``)."""
        made: dict[str, Any] = self.cli("key", "create", "--name", name, *_options(words))
        return made

    def limit(self, **words: str) -> dict[str, Any]:
        """Set a limit; ``words`` are the options of ``limit set`` (``select="team=a", unit="usd", amount="1"``)."""
        made: dict[str, Any] = self.cli("limit", "set", *_options(words))
        return made

    def verify(self) -> dict[str, Any]:
        """What ``faregate verify`` finds, whether it is content or not."""
        done = self.cli_raw("verify", "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        # It is another one with every batch that is booked.
        found.pop("anchor", None)
        return found

    def admin(self, method: str, path: str, body: object = None) -> Any:
        """One order to the admin API, over the data folder's socket: ``admin("GET", "/api/v1/keys")``.

        Raises:
            Refused: it was answered with something else than 2xx.
        """
        connection = _SocketConnection(self.data / "console.sock")
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise Refused(f"{method} {path}: {answer.status} {text}", answer.status)
        return json.loads(text) if text else None

    def settled(self) -> dict[str, Any]:
        """``verify`` once nothing is held, unknown or unprojected any more, or as it stands after the promised time."""
        end = time.monotonic() + VISIBLE_SECONDS
        while time.monotonic() < end:
            # Asked without the start of a process, and the command has the last word.
            found = self.admin("GET", "/api/v1/verify")
            if not nanos(found["held"]) and not nanos(found["unknown"]):
                break
            time.sleep(0.1)
        return self.verify()

    # -- the provider's side -------------------------------------------------------------------------------------------

    def simulator(self, method: str, name: str, body: object = None) -> Any:
        """Ask the simulator itself: ``simulator("POST", "release")``."""
        url = f"http://127.0.0.1:{self.simulator_port}/simulator/{name}"
        payload = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, payload, method=method), timeout=10) as answer:
            return json.load(answer)

    @contextmanager
    def simulator_silent(self) -> Iterator[None]:
        """The provider answers nobody inside the block, lookups included; its connections stay open."""
        assert self._simulator is not None
        self._simulator.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._simulator.send_signal(signal.SIGCONT)

    def truth(self) -> list[dict[str, Any]]:
        """Every call the provider saw, in the order in which it ended, from its own synced log."""
        records: list[dict[str, Any]] = []
        since = 0
        while True:
            page = self.simulator("GET", f"truth?since={since}&limit=10000")
            records += page["data"]
            if len(page["data"]) < 10_000:
                return records
            since = records[-1]["seq"]

    # -- inside --------------------------------------------------------------------------------------------------------

    def _start(self, command: Sequence[str], log_name: str) -> subprocess.Popen[bytes]:
        log = (self.folder / log_name).open("ab")
        self._logs.append(log)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=self.folder,
            start_new_session=True,
        )

    def _wait(self, ready: Any, what: str, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if process.poll() is not None:
                raise Refused(f"{what} ended with {process.returncode}:\n{self._tail()}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise Refused(f"{what} is not ready after {seconds:.0f} s:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in sorted(self.folder.glob("*.log")))

    def _ready(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def _child(self, role: str) -> int:
        assert self._serve is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for pid in _tree(self._serve.pid):
                if _command_line(pid)[-2:] == ["faregate.assembly", role]:
                    return pid
            time.sleep(0.02)
        raise Refused(f"there is no {role} process:\n{self._tail()}")


def _options(words: Mapping[str, str]) -> list[str]:
    return [part for name, value in words.items() for part in (f"--{name.replace('_', '-')}", value)]


def _program() -> list[str]:
    """``faregate`` as it is installed beside the interpreter that runs the tests."""
    return [str(Path(sys.executable).with_name("faregate"))]


def _environment() -> dict[str, str]:
    """The environment less what would reconfigure an installation behind the test's back."""
    outside = re.compile(r"FAREGATE_|OPENAI_|AZURE_|https?_proxy$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not outside.match(name)}


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _tree(pid: int) -> list[int]:
    """``pid`` and all below it, parents first, so that a supervisor dies before it can start anything again."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found

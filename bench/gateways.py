"""The three ways from the load generator to the mock provider: straight, through nginx, through Faregate.

Each is started on the gateway's core as its users start it, says which of its processes is *the gate* and which are the
whole tree, and is stopped again. Faregate runs with everything on: a key, limits on four levels, journal, projection.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import processes

ROOT = Path(__file__).resolve().parent.parent
MODEL = "bench-model"
#: Nano-dollars per token: whole numbers, so that the truth is an integer product.
INPUT_NANOS = 150
OUTPUT_NANOS = 600
GATE_CORE = 0
READY_SECONDS = 60.0


class Gateway:
    """One running way to the mock; ``key`` is the credential to use there."""

    name = ""
    key = "none"

    def __init__(self, mock_port: int, folder: Path) -> None:
        self.mock_port = mock_port
        self.folder = folder
        self.port = mock_port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until one call went through."""

    def tree(self) -> list[int]:
        """All its processes."""
        return processes.tree(self.process.pid) if self.process else []

    def gate(self) -> list[int]:
        """The processes that requests pass through."""
        return self.tree()

    def pause(self) -> None:
        """Let it stand still, so that it takes no CPU from another one."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Parents first: none of them may see a child that seems to hang.
        for pid in self.tree():
            os.kill(pid, number)

    def stop(self) -> None:
        """Stop it and forget it."""
        if self.process:
            self.resume()
            processes.stop(self.process)
            self.process = None

    def answers(self) -> bool:
        """One small call, as the load generator makes them."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "ready?"}], "max_tokens": 16}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {self.key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return b'"usage"' in answer.read()
        except (OSError, urllib.error.HTTPError):
            return False


class Direct(Gateway):
    """No gateway: what the mock and the load generator take for themselves."""

    name = "direct"


NGINX_CONFIG = """\
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
daemon off;
worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 16m;
  client_body_buffer_size 128k;
  keepalive_requests 100000000;
  tcp_nodelay on;
  upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 2048; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


class Nginx(Gateway):
    """A plain reverse proxy with keep-alive to the provider: the yardstick."""

    name = "nginx"

    def start(self) -> None:
        """Start it with one worker and a configuration of its own."""
        self.port = processes.free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""
        config.write_text(NGINX_CONFIG.format(user=user, folder=self.folder, mock_port=self.mock_port, port=self.port))
        with (self.folder / "nginx.log").open("wb") as log:
            self.process = processes.start([nginx_program(), "-c", str(config)], GATE_CORE, log)
        processes.wait_until("nginx", self.answers, READY_SECONDS, self.process)


def nginx_program() -> str:
    """Where nginx is.

    Raises:
        SystemExit: it is not installed.
    """
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("make bench needs nginx, its yardstick: apt-get install nginx-light (Debian, Ubuntu)")
    return found


FAREGATE_CONFIG = """\
providers:
  - name: openai
    kind: openai
    base_url: http://127.0.0.1:{mock_port}/v1
    api_key: sk-bench-upstream-credential
pricing:
  unknown: refuse
  overrides:
    - {{provider: openai, model: {model}, unit: input_tokens, per: 1000000, price: "0.15"}}
    - {{provider: openai, model: {model}, unit: output_tokens, per: 1000000, price: "0.60"}}
# The load of a benchmark is what the anomaly brake is for: it works, and has a floor far above it.
limits: {{brake: {{floor: "1000000"}}}}
"""

#: Limits on four levels, each far above the load: selector (``KEY`` is filled in), unit, amount, window.
LIMITS = (
    ("organization=default", "usd", "1000000", "month"),
    ("team=bench-team", "usd", "100000", "month"),
    ("team=bench-team", "tokens", "100000000000", "minute"),
    ("project=bench-project", "usd", "100000", "month"),
    ("project=bench-project", "requests", "100000000", "minute"),
    ("key=KEY", "usd", "100000", "lifetime"),
    ("key=KEY", "concurrency", "100000", ""),
)


#: Four places for the one name, and answers that are kept.
POOL_CONFIG = """\
deployments:
  - {{name: one, provider: openai, deployment: {model}, model: {model}}}
  - {{name: two, provider: openai, deployment: {model}, model: {model}}}
  - {{name: three, provider: openai, deployment: {model}, model: {model}}}
  - {{name: four, provider: openai, deployment: {model}, model: {model}}}
pools:
  - {{name: main, strategy: weighted, use: [one, two, three, four]}}
models:
  - {{name: {model}, to: [main]}}
"""


class Faregate(Gateway):
    """Faregate as its users start it: ``faregate serve`` with a configuration file and an empty data folder."""

    name = "faregate"
    #: What its configuration says beside.
    more = ""
    #: Where it is installed: the compiled wheel, or with ``--interpreted`` the sources as they stand.
    environment = ROOT / ".venv-compiled"

    def start(self) -> None:
        """Start it, make a key and the limits, and send the first call."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.config = self.folder / "faregate.yaml"
        self.config.touch(mode=0o600)  # it holds a credential
        self.config.write_text((FAREGATE_CONFIG + self.more).format(mock_port=self.mock_port, model=MODEL))
        self.port, console = processes.free_port(), processes.free_port()
        command = [
            *self._program(), "serve", "--config", str(self.config), "--data", str(self.data),
            "--gateway", f"127.0.0.1:{self.port}", "--console", f"127.0.0.1:{console}",
        ]  # fmt: skip
        with (self.folder / "faregate.log").open("wb") as log:
            self.process = processes.start(command, GATE_CORE, log, env=_environment(), cwd=self.folder)
        processes.wait_until("faregate", self._ready, READY_SECONDS, self.process)
        made = self.cli("key", "create", "--name", "bench", "--team", "bench-team", "--project", "bench-project")
        self.key = made["secret"]
        for selector, unit, amount, window in LIMITS:
            words = ["limit", "set", "--select", selector.replace("KEY", made["id"]), "--unit", unit]
            self.cli(*words, "--amount", amount, *(["--window", window] if window else []))
        processes.wait_until("faregate with its limits", self.answers, READY_SECONDS, self.process)

    def gate(self) -> list[int]:
        """The data plane's process alone."""
        found = [pid for pid in self.tree() if processes.command_line(pid)[-2:] == ["faregate.assembly", "gate"]]
        if len(found) != 1:
            raise RuntimeError(f"expected one gate process, found {len(found)}")
        return found

    def cli(self, *words: str) -> Any:
        """Run one ``faregate`` command on this installation and give back its JSON.

        Raises:
            RuntimeError: it failed; the text is what it said.
        """
        done = subprocess.run(
            [*self._program(), *words, "--data", str(self.data), "--json"],
            env=_environment(), cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"faregate {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout)

    def booked(self, requests: int) -> dict[str, int]:
        """The books' totals, once they hold ``requests`` calls and nothing is held; what they hold at a timeout.

        A provider never saw what the response cache answered, so that hits do not count as requests.
        """
        end = time.monotonic() + 60
        while True:
            rows = self.cli("usage", "--by", "model")
            verified = self.cli("verify")
            totals = {
                "requests": sum(row["requests"] - row.get("cache_hits", 0) for row in rows),
                "input_tokens": sum(row["input_tokens"] for row in rows),
                "output_tokens": sum(row["output_tokens"] for row in rows),
                "cost_nanos": sum(_nanos(row["cost"]) for row in rows),
                "verify_ok": int(verified["ok"] is True),
                "held_nanos": _nanos(verified["held"]),
            }
            settled = totals["requests"] >= requests and totals["held_nanos"] == 0
            if settled or time.monotonic() > end:
                return totals
            time.sleep(0.5)

    def _program(self) -> list[str]:
        return [str(self.environment / "bin/faregate")]

    def _ready(self) -> bool:
        # Calls are taken before the console listens, which keys and limits are made at.
        return (self.data / "console.sock").exists() and self.takes_calls()

    def takes_calls(self) -> bool:
        """Whether the gate says that it is ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Pooled(Faregate):
    """The same with a pool of four deployments."""

    name = "pooled"
    more = POOL_CONFIG


class Caching(Faregate):
    """The same with the pool, and with the response cache on for everybody."""

    name = "caching"
    more = POOL_CONFIG + 'cache: {{default: "on"}}\n'


def _environment() -> dict[str, str]:
    """The environment less everything that would reconfigure Faregate behind the bench's back."""
    outside = ("FAREGATE_", "OPENAI_", "AZURE_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    return {name: value for name, value in os.environ.items() if not name.startswith(outside)}


def _nanos(dollars: str) -> int:
    """Decimal dollars as integer nano-dollars, exactly."""
    whole, _, part = dollars.lstrip("-").partition(".")
    nanos = int(whole or 0) * 10**9 + int((part + "000000000")[:9])
    return -nanos if dollars.startswith("-") else nanos


GATEWAYS: dict[str, type[Gateway]] = {one.name: one for one in (Direct, Nginx, Faregate)}

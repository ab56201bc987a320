"""What a newcomer sees: the command behind ``make run``, its pasted curl line, and the same keys the next time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from installation import START_SECONDS, STOP_SECONDS, free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Greeting(NamedTuple):
    """What the first run printed."""

    lines: list[str]
    process: subprocess.Popen[str]

    @property
    def keys(self) -> dict[str, str]:
        """``admin`` and ``caller``, as the lines name them."""
        found = (re.match(r"(admin|caller) key\s+(sk-fg-\w+)", line) for line in self.lines)
        return {match[1]: match[2] for match in found if match}

    @property
    def curl(self) -> str:
        """The line to paste."""
        (line,) = [line for line in self.lines if line.startswith("curl")]
        return line

    def url(self, name: str) -> str:
        """The address printed for ``gateway`` or ``console``."""
        (line,) = [line for line in self.lines if line.startswith(name)]
        return line.split()[1]


def _command(gateway: int, console: int, data: Path) -> list[str]:
    """The recipe of ``make run``, with ports and a folder of the test's."""
    recipe = re.search(r"^run:.*\n\t@exec (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    options = f"--gateway 127.0.0.1:{gateway} --console 127.0.0.1:{console} --data {data}"
    return recipe[1].replace("$(BIN)", str(BIN)).replace("$(ARGS)", options).split()


@contextmanager
def _first_run(folder: Path, ports: tuple[int, int]) -> Iterator[Greeting]:
    """Start as ``make run`` does in an empty folder, and read until the curl line."""
    outside = re.compile(r"FAREGATE_|OPENAI_|AZURE_|https?_proxy$", re.IGNORECASE)
    environment = {name: value for name, value in os.environ.items() if not outside.match(name)}
    with (folder / "serve.log").open("a") as log:
        process = subprocess.Popen(
            _command(*ports, folder / "data"), cwd=folder, env=environment, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    # Killed at the deadline, it closes its output, which ends the reading.
    deadline = threading.Timer(START_SECONDS, process.kill)
    deadline.start()
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("curl"):
                break
        else:
            pytest.fail(f"no curl line within {START_SECONDS} s: {lines} {(folder / 'serve.log').read_text()}")
        deadline.cancel()
        yield Greeting(lines, process)
    finally:
        deadline.cancel()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def test_the_first_run_answers_its_pasted_curl_line_and_keeps_its_keys(tmp_path: Path) -> None:
    """The curl line works as pasted, the admin key opens the console, and a second start prints the same keys."""
    ports = (free_port(), free_port())
    with _first_run(tmp_path, ports) as first:
        pasted = subprocess.run(["bash", "-c", first.curl], capture_output=True, text=True, timeout=30, check=True)
        admin = {"authorization": f"Bearer {first.keys['admin']}"}
        url = first.url("console") + "/api/v1/requests"
        rows = httpx2.get(url, headers=admin, trust_env=False).json()["data"]
        refused = httpx2.get(url, headers={"authorization": f"Bearer {first.keys['caller']}"}, trust_env=False)
        mode = (tmp_path / "data" / "first-run.json").stat().st_mode & 0o777
    with _first_run(tmp_path, ports) as second:
        again = subprocess.run(["bash", "-c", second.curl], capture_output=True, text=True, timeout=30, check=True)

    assert json.loads(pasted.stdout)["choices"][0]["message"]["content"]
    assert json.loads(again.stdout)["choices"][0]["message"]["content"]
    assert len(rows) <= 1
    assert refused.status_code in (401, 403)
    assert set(first.keys) == {"admin", "caller"}
    assert (second.keys, second.curl) == (first.keys, first.curl)
    assert (first.process.returncode, second.process.returncode) == (0, 0)
    assert mode == 0o600
    assert [key for key in first.keys.values() if key in (tmp_path / "serve.log").read_text()] == []

"""``docs/guides/run-a-batch.md``, followed literally with the simulator as provider."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from installation import Installation
from system.calls import records, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "run-a-batch.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: The gate looks at a batch some seconds after its end at the latest.
SETTLED_SECONDS = 30.0


def blocks() -> list[tuple[str, str]]:
    return [(found[1], found[2]) for found in FENCE.finditer(GUIDE.read_text())]


def of(language: str) -> list[str]:
    return [body for kind, body in blocks() if kind == language]


def batch_ended(rows: list[dict[str, Any]]) -> bool:
    return any(row["operation"] == "batches" for row in rows)


@pytest.fixture
def followed(tmp_path: Path) -> Installation:
    """The installation of the guide: its configuration, with the port of a simulator that really runs."""
    (config,) = of("yaml")
    config = config.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:4010", "127.0.0.1:{simulator_port}")
    return Installation(tmp_path, config=config)


@pytest.mark.timeout(300)
def test_the_guide_is_followed_as_it_is_written(followed: Installation, tmp_path: Path) -> None:
    """Its files are written, its commands typed and its lines of Python run in its order; the batch is booked."""
    (lines,) = of("jsonl")
    before, after = of("console")
    with followed as running:
        (tmp_path / "lines.jsonl").write_text(lines)
        secret = ""
        for line in before.splitlines():
            made = running.cli(*shlex.split(line.removeprefix("$ faregate ")))
            secret = secret or made["secret"]
        environment = {"OPENAI_BASE_URL": f"{running.gateway_url}/v1", "OPENAI_API_KEY": secret}
        script = subprocess.run(
            [sys.executable, "-c", "\n".join(of("python"))],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert script.returncode == 0, script.stderr
        assert [json.loads(told)["custom_id"] for told in script.stdout.splitlines()] == ["one", "two"]
        # The batch's own record says ok only once its end was looked at; the calls about it end before.
        rows = until(lambda: records(running, status="ok"), batch_ended, SETTLED_SECONDS)
        (batch,) = [row for row in rows if row["operation"] == "batches"]
        for line in after.splitlines():
            done = running.cli_raw(*shlex.split(line.removeprefix("$ faregate ")))
            assert done.returncode == 0, done.stderr
            assert "research" in done.stdout
        assert sum(float(row["cost"]) for row in rows) == float(batch["cost"]) > 0

"""The container's health check against a real gate."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from faregate.config.settings import TlsSettings
from gates import running_gate, scenario
from installation import free_port

ROOT = Path(__file__).parents[2]
CERTIFICATES = ROOT / "tests" / "config" / "certificates"


async def checked(port: int) -> int:
    """The exit code of the command that the container runs, with the script where it is kept here."""
    said = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", (ROOT / "Containerfile").read_text(), re.MULTILINE)
    assert said is not None
    program, script = json.loads(said[1])
    assert f"COPY deploy/healthcheck.py {script}\n" in (ROOT / "Containerfile").read_text()
    assert program == "python"
    process = await asyncio.create_subprocess_exec(sys.executable, str(ROOT / "deploy" / "healthcheck.py"), str(port))
    return await process.wait()


@pytest.mark.parametrize(
    "tls", [None, TlsSettings(str(CERTIFICATES / "good.pem"), str(CERTIFICATES / "good.key"))], ids=["plain", "tls"]
)
@scenario
async def test_a_gate_that_lives_is_healthy(tmp_path: Path, tls: TlsSettings | None) -> None:
    """Whether it speaks TLS or leaves that to a proxy in front."""
    async with running_gate(tmp_path, tls=tls) as running:
        assert await checked(int(running.url.rpartition(":")[2])) == 0


@scenario
async def test_where_nobody_answers_nothing_is_healthy(tmp_path: Path) -> None:
    """A closed port is not alive."""
    assert await checked(free_port()) == 1

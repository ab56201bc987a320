"""The guides of callers without keys: each command works on an installation that has not begun yet."""

import re
import shlex
from pathlib import Path

import pytest

from commands import command
from faregate.config.load import load_text

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def typed(page: Path) -> list[str]:
    """The commands of ours that a guide tells its reader to type, but the check of a file that is elsewhere."""
    lines = re.findall(r"^ *\$ (faregate .*)$", page.read_text(), re.MULTILINE)
    return [line.partition(" #")[0].strip() for line in lines if line != "faregate check"]


@pytest.mark.parametrize("name", ["let-people-in-with-tokens.md", "protect-any-service.md"])
def test_each_command_of_a_guide_works(tmp_path: Path, name: str) -> None:
    """In their order, on one data folder."""
    lines = typed(GUIDES / name)
    for line in lines:
        told = command(*shlex.split(line)[1:], "--data", tmp_path / "data")
        assert told.code == 0, f"{line}: {told.err}"

    assert len(lines) >= 2


def test_the_configuration_of_the_guide_is_checked_by_the_command_it_names(tmp_path: Path) -> None:
    """Each of its files is good, and not good any more once an algorithm is added that anybody could sign by."""
    page = (GUIDES / "let-people-in-with-tokens.md").read_text()
    files = re.findall(r"^( *)```yaml\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    for indent, text in files:
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        file = tmp_path / "faregate.yaml"
        file.write_text("\n".join(lines).replace("${OPENAI_API_KEY}", "file:key"))
        (tmp_path / "key").write_text("sk-of-a-provider")
        (tmp_path / "key").chmod(0o600)
        file.chmod(0o600)
        assert command("check", "--config", file).code == 0
        loaded = load_text(file.read_bytes(), file.name, {}, tmp_path)
        assert loaded.config.identity.issuers or loaded.config.identity.accounting
    forgeable = "\n  issuers: [{name: a, issuer: 'https://a.example', audiences: [x], algorithms: [none]}]\n"
    file.write_text(file.read_text() + forgeable)
    told = command("check", "--config", file)

    assert "CFG-UNSAFE" in told.err

"""``docs/guides/give-out-keys.md``, followed literally in a folder of its own."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands import command, served
from console_parts import parts
from faregate.console.doors import trusted
from faregate.core import keys

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "give-out-keys.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: What the guide says is refused, and what waits for an installation that runs.
REFUSED = {"subscription delete gold-eve --yes": 1, "secrets retire-pepper p1 --yes": 4, "reload": 3}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the guide is followed in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAREGATE_DATA", "data")


def fences(language: str) -> list[str]:
    """The blocks of a language."""
    return [body for kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]


def followed(blocks: Sequence[str]) -> dict[str, str]:
    """What each command of some blocks said."""
    said: dict[str, str] = {}
    for line in [line for block in blocks for line in block.splitlines()]:
        words = shlex.split(line.removeprefix("$ "))
        told = command(*words[1:])
        name = " ".join(words[1:])
        assert (words[0], told.code) == ("faregate", REFUSED.get(name, 0)), f"{line}: {told.err}"
        said[name] = told.out + told.err
    return said


def test_the_guide_is_followed_as_it_is_written(tmp_path: Path) -> None:
    """Its commands are typed in its order on an installation that runs; each does what the guide says."""
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        said = followed(fences("console")[:-1])
    secret = (tmp_path / "found.txt").read_text().strip()
    assert "leaked" in said["key check found.txt"]
    assert secret not in "".join(said.values())
    assert "can be used" in said["subscription delete gold-eve --yes"]
    assert fences("text")[0].strip() == keys.PATTERN


def test_the_last_part_of_the_guide_is_followed_before_the_first_start() -> None:
    """It changes the pepper, which needs the file beside the books."""
    command("key", "create", "--name", "first")
    said = followed(fences("console")[-1:])
    assert "hangs on pepper p1" in said["secrets retire-pepper p1 --yes"]

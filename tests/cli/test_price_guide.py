"""``docs/guides/add-a-price.md``, followed literally in a folder of its own."""

import re
import shlex
from pathlib import Path

import pytest

from commands import command, program

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "add-a-price.md"
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def fences(language: str) -> list[str]:
    found = [(indent, body) for indent, kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]
    return ["".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)) for indent, body in found]


def test_the_guide_is_followed_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are written where it says, its commands are typed in its order, and all of them work."""
    (tmp_path / "faregate.yaml").write_text(fences("yaml")[0])
    (tmp_path / "book.csv").write_text(fences("csv")[0])
    environment = {"OPENAI_API_KEY": "sk-of-a-provider", "FAREGATE_DATA": "data"}
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lines = [line for block in fences("console") for line in block.splitlines()]
    said: dict[str, str] = {}
    for number, line in enumerate(lines):
        words = shlex.split(line.removeprefix("$ "))
        # Each is a process of its own where a person types it. The last is here, and finds what those before left in
        # the folder; to start thirty would take most of a minute.
        last = number == len(lines) - 1
        told = program(tmp_path, environment, *words[1:]) if last else command(*words[1:])
        assert (words[0], told.code) == ("faregate", 0), f"{line}: {told.err}"
        said[" ".join(words[1:])] = told.out + told.err
    assert "taken in" in said["price import book.csv"]
    assert "imported" in said["price list --model gpt-4o"]
    assert "2.2" in said["price explain gpt-4o --at 2030-01-02"]
    assert "no price list knows" in said["price explain no-such-model"]
    assert "\nanchor " in said["verify"]
    assert ": ok\n" in said["verify"]

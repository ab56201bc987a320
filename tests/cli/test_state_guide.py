"""``docs/guides/keep-state-in-git.md``, followed literally in a folder of its own."""

import json
import re
import shlex
from pathlib import Path

import pytest

from commands import command

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "keep-state-in-git.md"


def test_the_guide_is_followed_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is written, its commands are typed in its order, all of them work, and nothing differs at the end."""
    text = GUIDE.read_text()
    (state,) = re.findall(r"^```yaml state\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "state.yaml").write_text(state)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAREGATE_DATA", "data")
    typed = [
        line.removeprefix("$ ")
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    said: dict[str, str] = {}
    for line in typed:
        words = shlex.split(line)
        told = command(*words[1:])
        assert (words[0], told.code) == ("faregate", 0), f"{line}: {told.err}"
        said[" ".join(words[1:])] = told.out

    keys = [json.loads(line) for line in (tmp_path / "new-keys.jsonl").read_text().splitlines()]
    assert [key["name"] for key in keys] == ["ci", "chat"]
    assert json.loads(said["diff -f state.yaml --json"])["same"] is True
    assert all(key["secret"] not in (tmp_path / "exported.yaml").read_text() for key in keys)

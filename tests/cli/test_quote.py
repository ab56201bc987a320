"""``faregate quote``, and the guide to it."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.cli.quote import FILE_BYTES_MAX
from faregate.console.doors import trusted

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "quote-a-call.md"
CHAT = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]}
CONFIG = """\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}"}
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def quote(made: Parts, body: object, *words: str) -> Any:
    file = made.folder / "request.json"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    return command("quote", "-f", file, *words, "--data", made.folder / "data")


def test_a_quote_is_a_table_for_people_and_json_for_scripts(running: Parts) -> None:
    """Units, both ends in dollars, the lines of the upper end."""
    told = quote(running, CHAT)
    assert told.code == 0, told.err
    rows = [line.split() for line in told.out.splitlines()]
    assert ["output", "tokens", "0", "100"] in rows
    assert any(row[:2] == ["cost,", "dollars"] for row in rows)
    assert any(row[:3] == ["output_tokens", "-", "100"] for row in rows)
    found = quote(running, CHAT, "--json").json
    assert (found["operation"], found["output_tokens"]) == ("chat.completions", {"min": 0, "max": 100})


def test_what_fits_is_a_sentence(running: Parts) -> None:
    """By an amount, or by the limits of a key."""
    assert re.search(r"fits 0\.0005 dollars: \d+\.", quote(running, CHAT, "--amount", "0.0005").out)
    assert "No answer fits 0.000001 dollars" in quote(running, CHAT, "--amount", "0.000001").out


def test_a_call_that_would_be_refused_says_so_beside_the_quote(running: Parts) -> None:
    """On standard error, with the gateway's own code; the quote itself went well."""
    data = running.folder / "data"
    key = command("key", "create", "--name", "ci", "--json", "--data", data).json["id"]
    words = ["--unit", "tokens", "--amount", "20", "--window", "day"]
    assert command("limit", "set", *words, "--data", data).code == 0
    told = quote(running, CHAT, "--key", key)
    assert told.code == 0
    assert "Would be refused now: budget_exhausted" in told.err


@pytest.mark.parametrize(
    ("body", "words", "code", "said"),
    [
        ("{", (), 2, "not JSON"),
        ("[]", (), 2, "no JSON object"),
        ("[" * 100_000, (), 2, "not JSON"),
        (" " * (FILE_BYTES_MAX + 1), (), 2, "larger"),
        (CHAT, ("--endpoint", "chat"), 2, "chat.completions"),
        (CHAT, ("--amount", "ten"), 2, "12.50"),
        (CHAT, ("--tags", "env"), 2, "name=value"),
        (CHAT, ("--key", "key_nobody"), 1, "no such key"),
        ({**CHAT, "model": "nobody"}, (), 2, "not configured"),
        ({"model": "gpt-4o"}, (), 2, "request.messages"),
    ],
)
def test_what_cannot_be_quoted_names_the_rule(
    running: Parts, body: object, words: tuple[str, ...], code: int, said: str
) -> None:
    """Exit 2 for what is wrong with the words or the file, 1 for what does not exist."""
    told = quote(running, body, *words)
    assert (told.code, told.out) == (code, ""), told.err
    assert said in told.err


def test_the_examples_of_the_guide_say_what_is_written_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command, on an installation that has not begun yet, with the price list that ships with Faregate."""
    page = GUIDE.read_text()
    (tmp_path / "faregate.yaml").write_text(CONFIG)
    for name, body in zip(("chat.json", "audio.json"), re.findall(r"```json\n(.*?)```", page, re.DOTALL), strict=True):
        (tmp_path / name).write_text(body)
    (tmp_path / "faregate.yaml").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "up-123456789")
    monkeypatch.delenv("FAREGATE_URL", raising=False)
    key = "key_…"
    # Nothing is there yet, so the key of the guide comes first.
    fences = [fence.splitlines() for fence in re.findall(r"```console\n(.*?)```", page, re.DOTALL)]
    assert command("key", "create", "--name", "first", "--data", "data").code == 0
    for lines in fences:
        said: list[str] = []
        for line in lines:
            if not line.startswith("$ "):
                assert line in said, f"{line!r} is not among:\n" + "\n".join(said)
                continue
            words = [key if word == "key_…" else word for word in shlex.split(line)[2:]]
            told = command(*words, "--data", "data")
            assert told.code == 0, told.err
            said = told.out.splitlines()
            if words[:2] == ["key", "create"]:
                rows = command("key", "list", "--json", "--data", "data").json
                key = next(row["id"] for row in rows if row["name"] == "ci")

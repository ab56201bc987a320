"""``faregate provider``, ``deployment`` and ``model``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.config.load import load_text
from faregate.console.doors import trusted

SECRET = "sk-of-the-command-line-0123456789"
FILE = (
    b'providers:\n  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: abcdefgh12345678}\n'
)
CREATE = ("provider", "create", "--name", "mine", "--kind", "openai", "--base-url", "https://8.8.4.4/v1")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def ask(made: Parts, *words: object) -> Any:
    return command(*words, "--data", made.folder / "data")


def created(made: Parts, *words: object) -> Any:
    """A provider whose secret comes from a file."""
    file = made.folder / "key"
    file.write_text(SECRET + "\n")
    return ask(made, *CREATE, "--secret-file", file, "--json", *words).json


def test_a_provider_is_made_shown_changed_and_deleted(running: Parts) -> None:
    """Of its key only where it begins and ends, in tables as in JSON; nothing is deleted without a word."""
    assert created(running)["api_key"] == "sk-…6789"
    rows = ask(running, "provider", "list", "--json").json
    assert [(row["name"], row["source"]) for row in rows] == [("openai", "file"), ("mine", "api")]
    listed = ask(running, "provider", "list")
    assert "sk-…6789" in listed.out
    assert SECRET not in listed.out + listed.err

    changed = ask(running, "provider", "set", "mine", "--state", "disabled", "--json").json
    assert (changed["state"], ask(running, "provider", "show", "mine", "--json").json["state"]) == ("disabled",) * 2
    assert ask(running, "provider", "delete", "mine").code == 4
    assert ask(running, "provider", "delete", "mine", "--yes").code == 0
    assert ask(running, "provider", "show", "mine").code == 1


def test_what_holds_no_key_is_told(running: Parts) -> None:
    """No such file, or two places."""
    for words in (
        ("--secret-file", running.folder / "nowhere"),
        ("--secret-stdin", "--secret-file", running.folder / "nowhere"),
    ):
        assert ask(running, *CREATE, *words).code == 2


def test_what_must_not_be_has_the_code_of_its_kind(running: Parts) -> None:
    """Another address without the key is unsafe; the file's own is a conflict; nothing to change is wrong usage."""
    created(running)
    moved = ask(running, "provider", "set", "mine", "--base-url", "https://8.8.8.8/v1")
    assert (moved.code, "send api_key again" in moved.err) == (4, True)
    owned = ask(running, "provider", "set", "openai", "--state", "disabled")
    assert (owned.code, "configuration file" in owned.err) == (1, True)
    assert ask(running, "provider", "set", "mine").code == 2
    assert ask(running, "provider", "test", "mine").code == 3


def test_a_deployment_and_a_name_lead_to_a_provider(running: Parts) -> None:
    """In the order in which a person makes them, and takes them away."""
    created(running)
    placed = ask(running, "deployment", "create", "--name", "fast", "--provider", "mine", "--model", "gpt-4o", "--json")
    assert placed.json["region"] == "global"
    named = ask(running, "model", "create", "--name", "house", "--to", "fast,openai/gpt-4o", "--json").json
    assert named["to"] == ["fast", "openai/gpt-4o"]
    assert ask(running, "model", "set", "house", "--to", "fast", "--json").json["to"] == ["fast"]
    assert ask(running, "deployment", "set", "fast", "--region", "regional", "--json").json["region"] == "regional"
    assert "fast" in ask(running, "deployment", "list", "--provider", "mine").out
    assert ask(running, "deployment", "delete", "fast", "--yes").code == 1
    assert ask(running, "model", "delete", "house").code == 0
    assert ask(running, "deployment", "delete", "fast", "--yes").code == 0
    unpriced = ask(running, "deployment", "create", "--name", "x", "--provider", "mine", "--model", "no-such-model")
    assert (unpriced.code, "set one first" in unpriced.err) == (2, True)

"""``faregate pool``, and names that lead to pools."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.config.load import load_text
from faregate.console.doors import trusted

FILE = b"""\
providers:
  - {name: openai, kind: openai, base_url: "https://api.openai.com/v1", api_key: abcdefgh12345678}
deployments:
  - {name: east, provider: openai, model: gpt-4o}
  - {name: west, provider: openai, model: gpt-4o-mini}
pools:
  - {name: spare, use: [west]}
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def ask(made: Parts, *words: object) -> Any:
    return command(*words, "--data", made.folder / "data")


CREATE = ("pool", "create", "--name", "main", "--use", "east=2,west", "--strategy", "weighted")


def test_a_pool_is_made_shown_changed_and_deleted(running: Parts) -> None:
    """With weights as they are typed; nothing is deleted without a word."""
    made = ask(running, *CREATE, "--json").json
    assert [(each["deployment"], each["weight"]) for each in made["use"]] == [("east", 2), ("west", 1)]
    rows = ask(running, "pool", "list", "--json").json
    assert [(row["name"], row["source"]) for row in rows] == [("spare", "file"), ("main", "api")]
    listed = ask(running, "pool", "list").out
    assert "east=2,west" in listed
    assert "spare" in listed

    changed = ask(running, "pool", "set", "main", "--use", "west", "--sticky", "key", "--json").json
    assert ([each["deployment"] for each in changed["use"]], changed["sticky"]) == (["west"], "key")
    assert ask(running, "pool", "set", "main", "--sticky", "", "--json").json["sticky"] is None
    shown = ask(running, "pool", "show", made["id"]).out
    assert "weighted" in shown
    assert ask(running, "pool", "delete", "main").code == 4
    assert ask(running, "pool", "delete", "main", "--yes").code == 0
    assert ask(running, "pool", "show", "main").code == 1


def test_whatever_a_file_could_say_can_be_typed_as_json(running: Parts) -> None:
    """Beside the options; what both say is refused."""
    rule = {"priority": [{"from": 0, "to": 100, "use": ["west"]}], "breaker": {"trip": "2s"}}
    made = ask(running, *CREATE, "--rule", json.dumps(rule), "--json").json
    assert (made["priority"][0]["to"], made["breaker"]["trip"]) == (100, "2000ms")
    whole = ask(running, "pool", "create", "--name", "whole", "--rule", '{"use": ["east"]}', "--json").json
    assert whole["strategy"] == "ordered"
    for words, told in (
        (("--rule", '{"strategy": "cost"}'), "so does --strategy"),
        (("--rule", "[]"), "is not a JSON object such as"),
    ):
        refused = ask(running, *CREATE, *words)
        assert (refused.code, told in refused.err) == (2, True)


def test_what_is_wrong_is_told_with_its_field(running: Parts) -> None:
    """By the command where it can tell, else by the API."""
    for words, told in (
        (("pool", "create", "--name", "main"), "--use east-1,west-1"),
        (("pool", "create", "--name", "main", "--use", "east=much"), "no deployment with its weight"),
        (("pool", "create", "--name", "main", "--use", "easst"), "did you mean east?"),
        (("pool", "set", "spare"), "nothing to change"),
    ):
        refused = ask(running, *words)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    owned = ask(running, "pool", "set", "spare", "--use", "east")
    assert (owned.code, "configuration file" in owned.err) == (1, True)


def test_a_name_leads_to_a_pool_and_some_callers_elsewhere(running: Parts) -> None:
    """As it is typed, in order; an empty text leads nobody elsewhere, and what is not named stays."""
    ask(running, *CREATE)
    typed = ("--instead", "product=premium,stage=prod:west,main", "--instead", "team=a:spare")
    made = ask(running, "model", "create", "--name", "chat", "--to", "main", *typed, "--json").json
    assert made["instead"] == [
        {"select": {"product": "premium", "stage": "prod"}, "to": ["west", "main"]},
        {"select": {"team": "a"}, "to": ["spare"]},
    ]
    assert "product=premium,stage=prod:west,main team=a:spare" in ask(running, "model", "list").out
    assert len(ask(running, "model", "set", "chat", "--to", "spare,main", "--json").json["instead"]) == 2
    assert "model chat leads to this pool" in ask(running, "pool", "delete", "main", "--yes").err
    lifted = ask(running, "model", "set", "chat", "--instead", "", "--json").json
    assert (lifted["to"], lifted["instead"]) == (["spare", "main"], [])
    for words in ((), ("--instead", "product=premium"), ("--instead", ":main"), ("--instead", "premium:main")):
        assert ask(running, "model", "set", "chat", *words).code == 2
    told = ask(running, "explain", "--model", "chat", "--json").json
    assert [each["name"] for each in told["pools"]] == ["spare", "main"]

"""``faregate service``: services behind the gate that are made while everything runs, and those of the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.config.load import load_text
from faregate.console.doors import trusted

SECRET = "ck-of-the-command-line-0123456789"
FILE = b"""\
services:
  - {name: search, base_url: "http://127.0.0.1:9", api_key: abcdefgh12345678, max_duration: 5s, price: {per_call: "1"}}
"""
CREATE = ("service", "create", "--name", "ocr", "--base-url", "https://8.8.4.4/ocr")
WHOLE = (*CREATE, "--max-duration", "30s", "--per-call", "0.001")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    config = load_text(FILE, "faregate.yaml", {}, tmp_path).config
    with parts(tmp_path, config=config) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def ask(made: Parts, *words: object) -> Any:
    return command(*words, "--data", made.folder / "data")


def test_a_service_is_made_shown_changed_and_deleted(running: Parts) -> None:
    """Of its key only where it begins and ends, in tables as in JSON; nothing is deleted without a word."""
    file = running.folder / "key"
    file.write_text(SECRET + "\n")
    made = ask(running, *WHOLE, "--secret-file", file, "--json").json
    assert (made["api_key"], made["price"]["per_call"], made["max_duration"]) == ("ck-…6789", "0.001", "30000ms")
    rows = ask(running, "service", "list", "--json").json
    assert [(row["name"], row["source"]) for row in rows] == [("search", "file"), ("ocr", "api")]
    listed = ask(running, "service", "list")
    assert "ck-…6789" in listed.out
    assert SECRET not in listed.out + listed.err

    changed = ask(running, "service", "set", "ocr", "--per-second", "0.5", "--state", "disabled", "--json").json
    assert (changed["price"]["per_call"], changed["price"]["per_second"]) == (None, "0.5")
    assert [row["name"] for row in ask(running, "service", "list", "--state", "disabled", "--json").json] == ["ocr"]
    shown = ask(running, "service", "show", made["id"]).out
    assert '{"per_second": "0.5"}' in shown
    assert "bill_errors" not in shown
    assert ask(running, "service", "delete", "ocr").code == 4
    assert ask(running, "service", "delete", "ocr", "--yes").code == 0
    assert ask(running, "service", "show", "ocr").code == 1


def test_another_address_wants_the_key_again(running: Parts) -> None:
    """It is said so, and with the key it moves; words allow where it may be."""
    file = running.folder / "key"
    file.write_text(SECRET)
    ask(running, *WHOLE, "--secret-file", file)
    move = ("service", "set", "ocr", "--base-url", "http://127.0.0.1:9001")
    refused = ask(running, *move, "--allow-http")
    assert (refused.code, "send api_key again" in refused.err) == (4, True)
    assert "set allow_http: true" in ask(running, *move, "--secret-file", file).err
    moved = ask(running, *move, "--allow-http", "--secret-file", file, "--json").json
    assert (moved["base_url"], moved["allow_http"]) == ("http://127.0.0.1:9001", True)


def test_whatever_a_file_could_say_can_be_typed_as_json(running: Parts) -> None:
    """Beside the options; what both say is refused."""
    rule = {"methods": ["POST"], "paths": ["/v1"], "max_answer_bytes": "1MiB"}
    price = {"per_million_bytes_out": "0.7", "compute": {"rate_per_hour": "2", "memory_gb": 8, "memory_gb_total": 64}}
    made = ask(running, *WHOLE, "--rule", json.dumps(rule), "--price", json.dumps(price), "--json").json
    assert (made["methods"], made["paths"], made["max_answer_bytes"]) == (["POST"], ["/v1"], 1024**2)
    assert (made["price"]["per_call"], made["price"]["compute"]["memory_gb"]) == ("0.001", "8")
    for words, told in (
        (("--rule", '{"max_duration": "1s"}'), "--rule says max_duration, and so does --max-duration"),
        (("--price", '{"per_call": "1"}'), "--price says per_call, and so does --per-call"),
        (("--price", "[]"), "--price is not a JSON object such as"),
    ):
        refused = ask(running, *WHOLE, *words)
        assert (refused.code, told in refused.err) == (2, True), refused.err


def test_what_is_wrong_is_told_with_its_field(running: Parts) -> None:
    """By the command where it can tell, else by the API."""
    for words, told in (
        ((*CREATE, "--per-call", "1"), "--max-duration 30s"),
        ((*CREATE, "--max-duration", "1s"), "--per-call 0.001"),
        ((*WHOLE[:-1], "0,001"), "price.per_call"),
        ((*CREATE, "--max-duration", "soon", "--per-call", "1"), "max_duration"),
        ((*WHOLE, "--secret-stdin", "--secret-file", "x"), "exclude each other"),
        (("service", "set", "search"), "nothing to change"),
    ):
        refused = ask(running, *words)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    owned = ask(running, "service", "set", "search", "--per-call", "2")
    assert (owned.code, "configuration file" in owned.err) == (1, True)

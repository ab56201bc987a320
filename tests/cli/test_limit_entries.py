"""``faregate limit deposit|refund|history``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Told, command, served
from console_parts import Parts, parts
from faregate.console.doors import trusted


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def limit(made: Parts, *words: str) -> Told:
    return command("limit", *words, "--data", made.folder / "data")


@pytest.fixture
def money(running: Parts) -> str:
    """The id of a limit of 10 dollars."""
    told = limit(running, "set", "--unit", "usd", "--amount", "10", "--window", "lifetime", "--json")
    return str(told.json["id"])


def test_a_deposit_adds_and_is_told(running: Parts, money: str) -> None:
    """As a table for people, as JSON for scripts; the same reference is carried out once."""
    words = ("deposit", money, "--amount", "5", "--reason", "second invoice", "--reference", "inv-2")
    first = limit(running, *words, "--json").json
    assert (first["operation"], first["amount"], first["after"]) == ("deposit", "5", "15")
    assert limit(running, *words, "--json").json == first
    told = limit(running, *words)
    assert "second invoice" in told.out
    assert limit(running, "list", "--json").json[0]["amount"] == "15"


def test_a_refund_needs_its_reason(running: Parts, money: str) -> None:
    """It is a usage error without one."""
    told = limit(running, "refund", money, "--amount", "1")
    assert (told.code, "--reason" in told.err) == (2, True)
    found = limit(running, "refund", money, "--amount", "1", "--reason", "a bad day", "--json").json
    assert (found["operation"], found["after"]) == ("refund", "11")


def test_the_history_is_newest_first_and_outlives_the_limit(running: Parts, money: str) -> None:
    """With who and why, also when the limit is gone."""
    limit(running, "deposit", money, "--amount", "5")
    limit(running, "clear", money)
    rows = limit(running, "history", money, "--json").json
    assert [row["operation"] for row in rows] == ["clear", "deposit", "create"]
    assert {row["actor"] for row in rows} == {"local"}
    lines = limit(running, "history", money).out.splitlines()
    assert lines[0].split() == ["created_at", "operation", "amount", "before", "after", "actor", "reason"]
    assert len(lines) == 4


def test_tokens_are_whole_numbers(running: Parts) -> None:
    """Their unit decides how an amount is read."""
    words = ("set", "--unit", "tokens", "--amount", "100", "--window", "day", "--json")
    tokens = limit(running, *words).json["id"]
    assert limit(running, "deposit", tokens, "--amount", "5", "--json").json["after"] == 105
    told = limit(running, "deposit", tokens, "--amount", "5.5")
    assert (told.code, "whole number" in told.err) == (2, True)


def test_what_is_no_amount_is_refused(running: Parts, money: str) -> None:
    """With a sentence and exit 2, and nothing changes."""
    for amount in ("-5", "10,5", "NaN", "0", "unlimited", "10000000000000000000"):
        told = limit(running, "deposit", money, f"--amount={amount}")
        assert (told.code, "Traceback" in told.err) == (2, False), amount
    assert limit(running, "list", "--json").json[0]["amount"] == "10"


def test_a_limit_may_be_named_by_what_it_counts(running: Parts, money: str) -> None:
    """As ``limit set`` was told, so that no id need be looked up; by nothing is a usage error."""
    named = ("--unit", "usd", "--window", "lifetime")
    assert limit(running, "deposit", *named, "--amount", "5", "--json").json["limit"] == money
    assert limit(running, "refund", *named, "--amount", "1", "--reason", "r", "--json").json["after"] == "16"
    assert len(limit(running, "history", *named, "--json").json) == 3
    assert limit(running, "deposit", "--amount", "5").code == 2


def test_an_unknown_limit_is_not_found(running: Parts) -> None:
    """Exit 1 for each of the verbs."""
    for words in (("deposit", "lim_x", "--amount", "1"), ("history", "lim_x")):
        assert limit(running, *words).code == 1

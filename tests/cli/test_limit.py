"""``faregate limit``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import SECOND, Parts, opened, parts, settled_call
from faregate.console.doors import trusted
from faregate.console.keys import NewKey, create


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def limit(made: Parts, *words: str) -> Any:
    return command("limit", *words, "--data", made.folder / "data")


def test_the_examples_of_the_contract_work_as_written(running: Parts) -> None:
    """Money for a key and for a team's model, tokens for each user of a project."""
    key = create(running.console, NewKey(name="ci"))[0]["id"]
    first = limit(running, "set", "--select", f"key={key}", "--unit", "usd", "--amount", "0.10", "--window", "lifetime",
                  "--mode", "hard", "--json").json  # fmt: skip
    assert (first["id"][:4], first["posted"], first["held"], first["remaining"]) == ("lim_", "0", "0", "0.1")
    second = limit(running, "set", "--select", "team=research,model=gpt-4o", "--unit", "usd", "--amount", "250",
                   "--window", "month", "--timezone", "Europe/Berlin", "--json").json  # fmt: skip
    assert (second["window_start"], second["resets_at"]) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
    third = limit(running, "set", "--select", "project=search", "--each", "user", "--unit", "tokens", "--amount",
                  "20000", "--window", "minute", "--json").json  # fmt: skip
    assert (third["each"], third["amount"]) == (["user"], 20000)
    listed = limit(running, "list", "--json").json
    assert [each["id"] for each in listed] == sorted([first["id"], second["id"], third["id"]])
    assert all(name in listed[0] for name in ("id", "posted", "held", "remaining", "window_start", "resets_at"))


def test_a_key_is_named_as_elsewhere_on_the_command_line(running: Parts) -> None:
    """By its name when the limit is set and when it is looked for; what names none is refused."""
    key = create(running.console, NewKey(name="ci"))[0]["id"]
    words = ("--select", "key=ci", "--unit", "usd", "--window", "day")

    made = limit(running, "set", *words, "--amount", "5", "--json").json
    raised = limit(running, "raise", *words, "--amount", "9", "--until", "2d", "--json").json
    refused = limit(running, "set", "--select", "key=nosuchkey", "--unit", "usd", "--window", "day", "--amount", "5")

    assert (made["select"], raised["id"]) == ({"key": key}, made["id"])
    assert (refused.code, "there is no key 'nosuchkey'; write its id" in refused.err) == (2, True)


def test_a_limit_that_was_there_already_says_what_was_changed(running: Parts) -> None:
    """So that nobody lowers another's budget unseen; one that is new says nothing."""
    words = ("set", "--select", "team=research", "--unit", "usd", "--window", "month", "--amount")
    new = limit(running, *words, "250")
    lowered = limit(running, *words, "100")
    running.clock.now += SECOND
    same = limit(running, *words, "100")

    assert (new.err, "changed: amount 250 → 100" in lowered.err) == ("", True)
    assert "its amount is as it was" in same.err


def test_concurrency_needs_no_window(running: Parts) -> None:
    """It is counted at one moment."""
    found = limit(running, "set", "--unit", "concurrency", "--amount", "5", "--json").json
    assert (found["amount"], found["window"], found["select"]) == (5, None, {})


def test_a_limit_below_what_was_spent_says_that_nothing_is_left(running: Parts) -> None:
    """It is set all the same."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    told = limit(running, "set", "--select", "team=research", "--unit", "usd", "--amount", "0.0001", "--window", "day")
    assert told.code == 0
    assert "no new requests are admitted until 2026-11-22T00:00:00Z" in told.err


def test_a_limit_that_refuses_nobody_does_not_say_so(running: Parts) -> None:
    """In the shadow, too, nothing may be left, and everything is admitted."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    for mode in ("soft", "shadow"):
        told = limit(running, "set", "--unit", "usd", "--amount", "0.0001", "--window", "day", "--mode", mode)
        assert (told.code, told.err) == (0, "")


def test_a_cleared_limit_is_gone(running: Parts) -> None:
    """A second clear finds nothing."""
    made = limit(running, "set", "--unit", "requests", "--amount", "5", "--window", "day", "--json").json
    assert limit(running, "clear", made["id"]).code == 0
    assert limit(running, "clear", made["id"]).code == 1
    assert limit(running, "list", "--json").json == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--unit", "tokens", "--amount", "1.5", "--window", "day"], "whole number"),
        (["--unit", "usd", "--amount", "1"], "window"),
        (["--unit", "usd", "--amount", "1", "--window", "fortnight"], "window"),
        (["--unit", "usd", "--amount", "1", "--window", "day", "--select", "team"], "name=value"),
        (["--unit", "usd", "--amount", "1", "--window", "day", "--select", "team=a,team=b"], "twice"),
        (["--unit", "usd", "--amount", "1", "--window", "day", "--select", "colour=red"], "organization"),
        (["--unit", "usd", "--window", "day"], "--amount"),
    ],
)
def test_a_value_that_cannot_be_names_the_rule(running: Parts, words: list[str], said: str) -> None:
    """Exit 2, the rule on standard error, nothing stored."""
    told = limit(running, "set", *words)
    assert (told.code, told.out) == (2, ""), told.err
    assert said in told.err
    assert running.books.listing("limit") == []


def test_every_term_can_be_typed(running: Parts) -> None:
    """Actions, pace, calendar, raises and ends arrive as the API takes them."""
    told = limit(
        running, "set", "--select", "team=research", "--unit", "usd", "--amount", "100", "--window", "quarter",
        "--year-start", "04-06", "--carry-over", "20", "--action", "notify@80", "--action", "notify@100:forecast",
        "--action", "throttle@90=6", "--action", "downgrade@85=gpt-4o-mini", "--action", "stop@95",
        "--from", "2026-01-01", "--until", "400d", "--denial", "token_limit", "--reason", "first try", "--json",
    ).json  # fmt: skip
    assert (told["year_start"], told["carry_over"], told["denial"]) == ("04-06", "20", "token_limit")
    assert [(each["do"], each["at"], each["on"]) for each in told["actions"]] == [
        ("notify", 80, "actual"),
        ("notify", 100, "forecast"),
        ("throttle", 90, "actual"),
        ("downgrade", 85, "actual"),
        ("stop", 95, "actual"),
    ]
    assert (told["actions"][2]["requests_per_minute"], told["actions"][3]["to"]) == (6, "gpt-4o-mini")
    rate = limit(running, "set", "--unit", "requests", "--amount", "60", "--window", "minute", "--smooth", "--burst",
                 "5", "--json").json  # fmt: skip
    assert (rate["algorithm"], rate["burst"]) == ("smooth", 5)
    rolling = limit(running, "set", "--unit", "tokens", "--amount", "9", "--window", "rolling 24h", "--no-estimate",
                    "--mode", "shadow", "--json").json  # fmt: skip
    assert (rolling["window"], rolling["estimate"], rolling["mode"]) == ("rolling 24h", False, "shadow")


def test_a_limit_is_raised_by_what_it_counts(running: Parts) -> None:
    """Nobody has to look its id up; what nothing counts is not found."""
    limit(
        running,
        "set",
        "--select",
        "team=research",
        "--each",
        "user",
        "--unit",
        "usd",
        "--amount",
        "5",
        "--window",
        "day",
    )
    named = ("--select", "team=research", "--each", "user", "--unit", "usd", "--window", "day")
    told = limit(running, "raise", *named, "--amount", "9", "--until", "14d", "--reason", "workshop", "--json").json
    assert (told["amount"], [each["amount"] for each in told["raises"]]) == ("5", ["9"])
    other = limit(running, "raise", "--unit", "usd", "--window", "day", "--amount", "9", "--until", "14d")
    assert (other.code, "no limit counts just that" in other.err) == (1, True)
    both = limit(running, "raise", told["id"], *named, "--amount", "9", "--until", "14d")
    assert both.code == 2


@pytest.mark.parametrize(
    "action", ["notify", "notify@", "notify@x", "notify@80:", "throttle@90", "throttle@90=x", "stop@99999"]
)
def test_an_action_that_is_none_is_told_with_an_example(running: Parts, action: str) -> None:
    """Nothing is set."""
    told = limit(running, "set", "--unit", "usd", "--amount", "5", "--window", "day", "--action", action)
    assert (told.code, "--action" in told.err) == (2, True)
    assert limit(running, "list", "--json").json == []

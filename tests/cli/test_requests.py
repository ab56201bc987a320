"""``faregate requests``."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, catalogue_of, opened, parts, recalled_call, refused_call, settled_call
from faregate.cli.client import PAGE
from faregate.console.compile import card_rows
from faregate.console.doors import trusted


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def requests(made: Parts, *words: str) -> Any:
    return command("requests", *words, "--data", made.folder / "data")


def test_the_newest_requests_are_listed_and_filtered(running: Parts) -> None:
    """Refusals are among them."""
    running.journal.add(opened(), *settled_call("req_1"), refused_call("req_2"))
    running.project()
    assert [row["id"] for row in requests(running, "--json").json] == ["req_2", "req_1"]
    assert [row["id"] for row in requests(running, "--select", "status=ok", "--json").json] == ["req_1"]
    assert "budget_exhausted" in requests(running, "--limit", "1").out


def test_one_request_shows_how_its_cost_came(running: Parts) -> None:
    """The lines of the derivation, then their sum."""
    catalogue = catalogue_of([], [])
    running.books.keep_rate_cards(card_rows(catalogue))
    version = catalogue.deployments[0].cards[0].version
    running.journal.add(opened(), *settled_call("req_1", version=version))
    running.project()
    told = requests(running, "req_1")
    assert f"sum 0.00175 = 0.00175 by {version}" in told.out
    assert requests(running, "req_1", "--json").json["derivation"]["cost"] == "0.00175"
    assert "charged" not in told.out


def test_one_request_shows_what_lies_between_cost_and_charge(running: Parts) -> None:
    """Mark-up and fee as lines behind the cost, then the charge."""
    catalogue = catalogue_of([], [])
    running.books.keep_rate_cards(card_rows(catalogue))
    intent, end = settled_call("req_1", version=catalogue.deployments[0].cards[0].version)
    end = end._replace(charge=2_925_000, charge_rule="markup 10 % + fee 0.001")  # type: ignore[call-arg]
    running.journal.add(opened(), intent, end)
    running.project()
    told = requests(running, "req_1").out.splitlines()
    assert [line.split() for line in told[-5:]] == [
        ["charge", "term", "amount"],
        ["cost", "0.00175"],
        ["markup", "10", "%", "0.000175"],
        ["fee", "each", "call", "0.001"],
        ["charged", "0.002925"],
    ]


def test_a_hit_is_listed_and_shown_with_what_it_saved(running: Parts) -> None:
    """Columns about the cache are there where it was used."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    assert "saved_cost" not in requests(running).out
    running.journal.add(recalled_call("req_2", charge=437_500))
    running.project()
    head, first, _ = requests(running).out.splitlines()
    assert (head.split()[-2:], first.split()[-2:]) == (["cache", "saved_cost"], ["hit", "0.00175"])
    told = requests(running, "req_2").out
    assert "the answer was kept before, which saved 0.00175" in told
    assert told.splitlines()[-1] == "charged 0.0004375"
    explained = command("explain", "req_2", "--data", running.folder / "data").out
    assert "it was answered from the cache" in explained


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["req_0"], 1),
        (["--limit", "0"], 2),
        (["--limit", "1001"], 2),
        (["req_1", "--follow"], 2),
        (["--since", "x"], 2),
    ],
)
def test_what_cannot_be_shown_is_told(running: Parts, words: list[str], code: int) -> None:
    """Nothing found is 1, a wrong word is 2."""
    assert requests(running, *words).code == code


@contextlib.contextmanager
def following(made: Parts, *words: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[int], list[str]]]]:
    """``requests --follow --json`` as a program, and what reads the ids of its next so many lines."""
    program = subprocess.Popen(
        [str(Path(sys.executable).with_name("faregate")), "requests", "--follow", "--json", *words, "--data",
         str(made.folder / "data")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    lines = program.stdout
    assert lines is not None
    deadline = threading.Timer(30, program.kill)
    deadline.start()
    try:
        yield program, lambda count: [json.loads(lines.readline())["id"] for _ in range(count)]
    finally:
        deadline.cancel()
        program.kill()
        program.communicate()


def test_following_prints_what_is_new_until_interrupted(running: Parts) -> None:
    """One line of JSON for each, oldest first; an interrupt ends it quietly."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    with following(running) as (program, ids):
        assert ids(1) == ["req_1"]
        running.journal.add(*settled_call("req_2"), refused_call("req_3"))
        running.project()
        assert ids(2) == ["req_2", "req_3"]
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=10)
    assert (program.returncode, err) == (130, "")


def test_following_replays_no_history_and_tells_a_call_that_ended_late(running: Parts) -> None:
    """Of older records only the newest are shown; a long call, older by its id than these, comes at its end."""
    begun, ended = settled_call("req_0000")
    calls = [settled_call(f"req_{number:04d}") for number in range(1, 31)]
    running.journal.add(opened(), begun, *(event for call in calls for event in call))
    running.project()
    with following(running, "--limit", "3") as (_, ids):
        before = ids(3)
        running.journal.add(ended, *settled_call("req_0031"))
        running.project()
        after = ids(2)

    assert (before, after) == (["req_0028", "req_0029", "req_0030"], ["req_0000", "req_0031"])


def test_following_loses_nothing_of_more_than_one_page(running: Parts) -> None:
    """Refusals by the thousand between two looks, among them few that were asked for, are told once each."""
    running.journal.add(opened(), *settled_call("req_00000"))
    running.project()
    wanted = [f"req_{number:05d}" for number in range(1, 2 * PAGE + 11)]
    with following(running) as (_, all_ids), following(running, "--select", "status=ok") as (_, ok_ids):
        first = (all_ids(1), ok_ids(1))
        running.journal.add(*(refused_call(each) for each in wanted), *settled_call("req_99999"))
        running.project()
        told = (all_ids(len(wanted) + 1), ok_ids(1))
        running.journal.add(*settled_call("req_99999a"))
        running.project()
        last = (all_ids(1), ok_ids(1))

    assert first == (["req_00000"], ["req_00000"])
    assert told == ([*wanted, "req_99999"], ["req_99999"])
    assert last == (["req_99999a"], ["req_99999a"])


def test_following_begins_before_there_is_anything(running: Parts) -> None:
    """The first record of all is told, and a filter that fits nothing yet keeps nothing back."""
    with following(running) as (_, ids):
        running.journal.add(opened(), *settled_call("req_1"))
        running.project()
        assert ids(1) == ["req_1"]

"""``faregate usage``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, opened, parts, recalled_call, settled_call
from faregate.console.doors import trusted


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def usage(made: Parts, *words: str) -> Any:
    return command("usage", *words, "--data", made.folder / "data")


def test_usage_is_told_as_the_contract_shows_it(running: Parts) -> None:
    """These fields in this order, money as text."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    told = usage(running, "--by", "team,model", "--from", "2026-11-01", "--to", "2026-12-01", "--json").json
    assert [list(row.items()) for row in told] == [
        [
            ("team", "research"),
            ("model", "gpt-4o"),
            ("requests", 1),
            ("input_tokens", 300),
            ("output_tokens", 100),
            ("cost", "0.00175"),
            ("charge", "0.00175"),
        ]
    ]


def test_what_the_cache_did_is_told_where_it_was_used(running: Parts) -> None:
    """Hits, misses and what was saved come last; without any they are left out."""
    running.journal.add(opened(), *settled_call("req_1"), recalled_call("req_2"))
    running.project()
    (row,) = usage(running, "--by", "team", "--from", "2026-11-01", "--json").json
    assert list(row.items())[-3:] == [("cache_hits", 1), ("cache_misses", 0), ("saved_cost", "0.00175")]
    assert "cache_hits" in usage(running, "--by", "team", "--from", "2026-11-01").out
    assert "cache" not in usage(running, "--by", "team", "--from", "2027-01-01").out


def test_usage_by_key_has_its_name_and_intervals_come_first(running: Parts) -> None:
    """A row for each day and key."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    row = usage(running, "--by", "key", "--interval", "day", "--select", "team=research", "--json").json[0]
    assert list(row)[:3] == ["day", "key", "key_name"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "colour"], "organization"),
        (["--interval", "fortnight"], "month"),
        (["--select", "team"], "name=value"),
    ],
)
def test_what_cannot_be_asked_names_the_rule(running: Parts, words: list[str], said: str) -> None:
    """Exit 2."""
    told = usage(running, *words)
    assert told.code == 2, told.err
    assert said in told.err

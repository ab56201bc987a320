"""``faregate requests``."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import command, served
from console_parts import Parts, catalogue_of, opened, parts, refused_call, settled_call
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


def test_following_prints_what_is_new_until_interrupted(running: Parts) -> None:
    """One line of JSON for each, oldest first; an interrupt ends it quietly."""
    running.journal.add(opened(), *settled_call("req_1"))
    running.project()
    program = subprocess.Popen(
        [str(Path(sys.executable).with_name("faregate")), "requests", "--follow", "--json", "--data",
         str(running.folder / "data")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert program.stdout is not None
    try:
        assert json.loads(program.stdout.readline())["id"] == "req_1"
        running.journal.add(*settled_call("req_2"), refused_call("req_3"))
        running.project()
        assert [json.loads(program.stdout.readline())["id"] for _ in range(2)] == ["req_2", "req_3"]
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=10)
    finally:
        program.kill()
        program.wait()
    assert (program.returncode, err) == (130, "")

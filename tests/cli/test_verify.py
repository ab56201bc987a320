"""``faregate verify``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from commands import command, served
from console_parts import Parts, opened, parts, settled_call
from faregate.console.app import create_app
from faregate.console.doors import trusted
from faregate.console.state import Check


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as each:
        yield each


def test_verify_is_told_as_the_contract_shows_it(made: Parts) -> None:
    """These fields in this order; exit 0 says that all is well."""
    made.journal.add(opened(), *settled_call("req_1"))
    made.project()
    with served(trusted(made.app), socket_in=made.folder / "data"):
        told = command("verify", "--json", "--data", made.folder / "data").json
    anchor = told.pop("anchor")
    assert (anchor["number"], len(anchor["hash"]), anchor["at"]) == (2, 64, "2026-11-21T12:00:00Z")
    assert list(told.items()) == [
        ("ok", True), ("requests", 1), ("postings", 2), ("held", "0"), ("unknown", "0"), ("sum", "0"),
    ]  # fmt: skip


def test_books_that_do_not_add_up_exit_with_1_and_say_where(made: Parts) -> None:
    """The failed check is named, for people and for scripts."""
    console = replace(made.console, check_journal=lambda: [Check("records", False, "req_7 differs")])
    with served(trusted(create_app(console)), socket_in=made.folder / "data"):
        people = command("verify", "--data", made.folder / "data")
        script = command("verify", "--json", "--data", made.folder / "data")
    assert (people.code, script.code) == (1, 1)
    assert "FAIL  records" in people.out
    assert "req_7 differs" in script.out


def test_a_stopped_installation_is_verified_in_place(tmp_path: Path) -> None:
    """Empty books are well."""
    data = tmp_path / "data"
    assert command("key", "create", "--name", "a", "--data", data).code == 0
    assert command("verify", "--json", "--data", data).json["requests"] == 0

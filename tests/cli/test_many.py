"""``faregate key create --from-file``: the keys of a file, all of them or none."""

import csv
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import command, served
from console_parts import Parts, parts
from faregate.cli.many import items_of
from faregate.console.doors import trusted
from faregate.errors import UsageError


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Parts]:
    """An installation whose console answers on its socket."""
    with parts(tmp_path) as made, served(trusted(made.app), socket_in=tmp_path / "data"):
        yield made


def test_the_keys_of_a_csv_file_are_made_and_their_secrets_kept_in_a_file_of_the_owner(
    running: Parts, tmp_path: Path
) -> None:
    """Empty cells are left out, lists are joined by spaces, and the screen shows no secret."""
    source, out = tmp_path / "keys.csv", tmp_path / "made.csv"
    source.write_text('name,team,models\nci,red,gpt-4o gpt-4o-mini\n"a, b",,\n')

    told = command("key", "create", "--from-file", source, "--out", out, "--json", "--data", tmp_path / "data")

    assert [(each["name"], each["team"]) for each in told.json] == [("ci", "red"), ("a, b", None)]
    with out.open() as file:
        kept = list(csv.DictReader(file))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [each["name"] for each in kept] == ["ci", "a, b"]
    assert kept[0]["secret"] not in told.out
    row = running.console.ring.holder(kept[0]["secret"])
    assert row is not None
    assert row["models"] == ["gpt-4o", "gpt-4o-mini"]


def test_what_is_wrong_with_one_key_of_a_json_file_is_told_in_its_place_and_none_is_made(
    running: Parts, tmp_path: Path
) -> None:
    """As the API tells it."""
    source = tmp_path / "keys.json"
    source.write_text(json.dumps([{"name": "a"}, {"name": "a"}]))

    told = command("key", "create", "--from-file", source, "--data", tmp_path / "data")

    assert told.code != 0
    assert "items.1.name" in told.err
    assert running.books.listing("key") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keys.txt", "name\na\n"),
        ("keys.csv", "name,name\na,b\n"),
        ("keys.csv", "name,team\na\n"),
        ("keys.csv", "name\n"),
        ("keys.json", "{}"),
        ("keys.json", "[1]"),
        ("keys.json", "["),
        ("keys.json", json.dumps([{"name": "a"}] * 1_001)),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_sent(tmp_path: Path, name: str, text: str) -> None:
    """With what is wrong with it."""
    (tmp_path / name).write_text(text)

    with pytest.raises(UsageError):
        items_of(tmp_path / name)


def test_a_file_and_options_of_one_key_do_not_go_together(tmp_path: Path) -> None:
    """Nor does neither of them."""
    assert command("key", "create", "--name", "a", "--from-file", "keys.json", "--data", tmp_path).code == 2
    assert command("key", "create", "--data", tmp_path).code == 2

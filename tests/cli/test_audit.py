"""``faregate audit``, and the anchors of ``faregate verify``."""

import json
import sqlite3
from pathlib import Path

from commands import command


def keys(data: Path, *names: str) -> None:
    for name in names:
        assert command("key", "create", "--name", name, "--data", data).code == 0


def test_the_trail_is_a_table_for_people_and_json_for_scripts(tmp_path: Path) -> None:
    """Newest first, with what became different in a few words."""
    data = tmp_path / "data"
    keys(data, "one", "two")
    lines = command("audit", "--kind", "key", "--json", "--data", data).json
    assert [line["after"]["name"] for line in lines] == ["two", "one"]
    told = command("key", "revoke", lines[0]["id"], "--yes", "--data", data)
    assert told.code == 0, told.err
    people = command("audit", "--id", lines[0]["id"], "--data", data).out.splitlines()
    assert people[0].split() == ["n", "at", "actor", "kind", "id", "change"]
    assert "state: active -> revoked" in people[1]
    assert "made: two" in people[2]


def test_what_became_different_is_told_as_people_write_it(tmp_path: Path) -> None:
    """Amounts in dollars and times as times, for people and for scripts."""
    data = tmp_path / "data"
    words = ("--select", "team=a", "--unit", "usd", "--window", "day", "--data", data)
    for amount in ("5", "7.25"):
        assert command("limit", "set", "--amount", amount, *words).code == 0
    line = command("audit", "--kind", "limit", "--json", "--data", data).json[0]
    assert (line["before"]["amount"], line["after"]["amount"]) == ("5", "7.25")
    assert line["after"]["created_at"].endswith("Z")
    assert "amount: 5 -> 7.25" in command("audit", "--kind", "limit", "--data", data).out.splitlines()[1]


def test_filters_and_limits_hold(tmp_path: Path) -> None:
    """What does not fit is not there; a limit out of range is refused before anything is asked."""
    data = tmp_path / "data"
    keys(data, "one", "two", "three")
    assert len(command("audit", "--kind", "key", "--limit", "2", "--json", "--data", data).json) == 2
    assert command("audit", "--actor", "nobody", "--json", "--data", data).json == []
    assert command("audit", "--until", "2020-01-01", "--json", "--data", data).json == []
    assert command("audit", "--limit", "0", "--data", data).code == 2


def test_an_anchor_proves_that_the_books_go_on_from_it(tmp_path: Path) -> None:
    """By the file that verify printed, or by its hash; another installation's books do not have it."""
    data, other, file = tmp_path / "data", tmp_path / "other", tmp_path / "anchor.json"
    keys(data, "one")
    told = command("verify", "--json", "--data", data)
    file.write_text(told.out)
    keys(data, "two")
    keys(other, "one")
    assert command("verify", "--anchor", file, "--data", data).code == 0
    assert command("verify", "--anchor", told.json["anchor"]["hash"].upper(), "--data", data).code == 0
    stranger = command("verify", "--anchor", file, "--json", "--data", other)
    assert stranger.code == 1
    assert "not those of that anchor" in json.loads(stranger.out)["checks"][0]["detail"]


def test_what_is_no_anchor_is_refused(tmp_path: Path) -> None:
    """A file without one, and a file that is not there."""
    data, file = tmp_path / "data", tmp_path / "anchor.json"
    keys(data, "one")
    file.write_text('{"anchor": {"hash": "short"}}')
    assert command("verify", "--anchor", file, "--data", data).code == 2
    assert command("verify", "--anchor", tmp_path / "nowhere", "--data", data).code == 2


def test_a_figure_that_somebody_changed_fails_verify(tmp_path: Path) -> None:
    """The row is named, for people and for scripts."""
    data = tmp_path / "data"
    keys(data, "one")
    file = sqlite3.connect(data / "books.sqlite3")
    file.execute("UPDATE keys SET role = 'root'")
    file.commit()
    (key,) = file.execute("SELECT id FROM keys").fetchone()
    file.close()
    told = command("verify", "--data", data)
    assert told.code == 1
    assert f"key {key} is not what its last change left" in told.out

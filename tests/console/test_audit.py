"""The trail of changes."""

import json
import random
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_parts import SECOND, Api, Parts
from faregate.console.audit import FILE_NAME, NOT_MADE, AuditTrail, all_marks, settle
from faregate.console.doors import trusted
from faregate.console.writing import put
from faregate.errors import Conflict
from faregate.storage.sqlite.opening import open_books
from soaking import examples


def test_every_change_is_told_with_who_when_before_and_after(made: Parts) -> None:
    """Newest first; the request id leads to the log."""
    root = made.admin_key()
    api = Api(made.app, root)
    key = api.post("/api/v1/keys", {"name": "ci"})
    answer = api.call("PATCH", f"/api/v1/keys/{key['id']}", json={"state": "disabled"})
    newest = api.get("/api/v1/audit?limit=1")["data"][0]
    assert (newest["kind"], newest["id"], newest["at"]) == ("key", key["id"], "2026-11-21T12:00:00Z")
    assert (newest["before"]["state"], newest["after"]["state"]) == ("active", "disabled")
    assert newest["actor"] == made.books.listing("key", name="root")[0]["id"]
    assert newest["request_id"] == answer.headers["x-faregate-request-id"]


def test_no_secret_and_no_digest_is_in_the_trail(made: Parts) -> None:
    """Whoever reads it cannot use or test a key."""
    key = Api(trusted(made.app)).post("/api/v1/keys", {"name": "ci"})
    row = made.books.get("key", key["id"])
    assert row is not None
    text = (made.folder / "data" / FILE_NAME).read_text()
    assert key["secret"][9:] not in text
    assert next(iter(row["digests"])) not in text
    assert json.loads(text.splitlines()[-1])["actor"] == "local"


def test_limits_prices_and_removals_are_in_the_trail(made: Parts) -> None:
    """Kinds of changes do not matter; a removal has no after, and why a limit changed stands behind its change."""
    api = Api(trusted(made.app))
    limit = api.post("/api/v1/limits", {"unit": "requests", "amount": 5, "window": "day"})
    api.send("DELETE", f"/api/v1/limits/{limit['id']}")
    price = {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "per": 1_000_000, "price": "3"}
    api.send("PUT", "/api/v1/prices", price)
    told = [(row["kind"], row["before"] is None, row["after"] is None) for row in api.get("/api/v1/audit")["data"]]
    entry = ("limit_entry", True, False)
    assert told == [("price", True, False), entry, ("limit", False, True), entry, ("limit", True, False)]


def test_the_trail_is_paged_from_the_newest_to_the_first(made: Parts) -> None:
    """No line twice and none left out, also across blocks of the file."""
    api = Api(trusted(made.app))
    for number in range(60):
        api.post("/api/v1/teams", {"name": f"team {number:03} " + "x" * 100})
    assert [row["n"] for row in api.pages("/api/v1/audit?limit=7")] == list(range(61, 0, -1))


def test_what_was_refused_is_not_in_the_trail(made: Parts) -> None:
    """Only changes are."""
    api = Api(trusted(made.app))
    api.post("/api/v1/keys", {"name": ""}, status=422)
    assert api.get("/api/v1/audit") == {"data": [], "next_cursor": None}


def lines_of(folder: Path, count: int) -> list[bytes]:
    """A trail of so many changes, as lines."""
    trail = AuditTrail(folder)
    for number in range(count):
        trail.append("2026-11-21T12:00:00Z", "team", f"team_{number}", None, {"name": f"n{number}"})
    return (folder / FILE_NAME).read_bytes().splitlines(keepends=True)


@given(st.data())
def test_an_edited_removed_or_moved_line_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Verify names the line."""
    folder = tmp_path_factory.mktemp("trail")
    lines = lines_of(folder, 6)
    assert AuditTrail(folder).fault() == ""
    at = data.draw(st.integers(0, 4))
    how = data.draw(st.sampled_from(["edit", "remove", "move", "double"]))
    if how == "edit":
        lines[at] = lines[at].replace(b'"actor": "command"', b'"actor": "nobody1"')
    elif how == "remove":
        del lines[at]
    elif how == "move":
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    else:
        lines.insert(at, lines[at])
    (folder / FILE_NAME).write_bytes(b"".join(lines))
    assert "trail of changes" in AuditTrail(folder).fault()


@given(st.integers(1, 100))
def test_a_line_torn_by_a_crash_is_cut_and_the_trail_goes_on(
    tmp_path_factory: pytest.TempPathFactory, kept: int
) -> None:
    """The torn change was never acknowledged."""
    folder = tmp_path_factory.mktemp("trail")
    lines = lines_of(folder, 3)
    (folder / FILE_NAME).write_bytes(b"".join(lines[:2]) + lines[2][: min(kept, len(lines[2]) - 1)])
    trail = AuditTrail(folder)
    trail.append("2026-11-21T12:00:01Z", "team", "team_9", None, {"name": "n9"})
    assert trail.fault() == ""
    found, start = trail.newest(None, 10)
    assert ([row["n"] for row in found], start) == ([3, 2, 1], 0)


def test_a_change_that_cannot_be_recorded_is_not_made(made: Parts) -> None:
    """A trail that cannot be opened closes the door to changes, not to looking."""
    (made.folder / "data" / FILE_NAME).mkdir()
    api = Api(trusted(made.app))
    assert api.post("/api/v1/teams", {"name": "a"}, status=503)["code"] == "unavailable"
    assert api.get("/api/v1/teams")["data"] == []


# -- the trail and the books -------------------------------------------------------------------------------------------


def told(made: Parts) -> str:
    """What verify finds wrong with the trail."""
    trail = AuditTrail(made.folder / "data")
    return trail.fault(all_marks(made.books), trail.last())


def changed(made: Parts, count: int = 4) -> Path:
    """A console on which so many changes were made; the file of the trail."""
    for number in range(count):
        put(made.console, "team", {"id": f"team_{number}", "name": f"team {number}"})
    return made.folder / "data" / FILE_NAME


def test_a_cut_off_end_of_the_trail_is_found(made: Parts) -> None:
    """The chain of its lines alone cannot tell; the books know how far it went."""
    file = changed(made)
    assert told(made) == ""
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    assert told(made) == "the trail of changes was cut off: it ends with line 3, the books know of line 4"
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:-1])
    assert "was cut off" in told(made)
    file.unlink()
    assert "it ends with line 0" in told(made)


def test_a_trail_that_was_written_anew_is_found(made: Parts) -> None:
    """Anybody can compute hashes; the books hold the true ones."""
    file = changed(made)
    file.unlink()
    lines_of(made.folder / "data", 4)
    assert AuditTrail(made.folder / "data").fault() == ""
    assert told(made) == "line 1 of the trail of changes is not the one that the books know"


def test_older_books_put_in_the_place_of_newer_ones_are_found(made: Parts) -> None:
    """The trail tells of changes that they do not hold, also after a restart and further changes."""
    changed(made, 2)
    path = made.folder / "data" / "books.sqlite3"
    older = made.folder / "older"
    with sqlite3.connect(path) as source, sqlite3.connect(older) as target:
        source.backup(target)
    api = Api(trusted(made.app))
    for number in range(3):
        api.post("/api/v1/organizations", {"name": f"organization {number}"})
    made.books.close()
    for left in path.parent.glob("books.sqlite3*"):
        left.unlink()
    older.rename(path)
    made.books = open_books(path, made.clock)
    says = "lines 3 to 5 of the trail of changes tell of changes that the books do not hold"
    assert says in told(made)
    assert says in settle(AuditTrail(path.parent), made.books, "2026-11-21T12:00:00Z")
    made.books.put(
        "team", {"id": "team_9", "name": "nine"}, told=AuditTrail(path.parent).append("", "team", "", {}, {})
    )
    assert says in told(made)


def test_a_change_that_a_crash_kept_from_being_made_is_said_not_to_be_made(made: Parts) -> None:
    """Its line came first and stays; the next start adds what became of it."""
    changed(made, 2)
    AuditTrail(made.folder / "data").append("2026-11-21T12:00:01Z", "team", "team_9", None, {"name": "nine"})
    assert "line 3 of the trail of changes tells of a change that the books do not hold" in told(made)
    trail = AuditTrail(made.folder / "data")
    assert settle(trail, made.books, "2026-11-21T12:00:02Z") == ""
    (line,) = trail.newest(None, 1)[0]
    assert (line["n"], line["kind"], line["after"]) == (4, NOT_MADE, {"first": 3, "last": 3})
    assert told(made) == ""
    assert settle(trail, made.books, "2026-11-21T12:00:03Z") == ""
    assert trail.last() == 4


def test_a_change_that_fails_is_taken_back_in_the_trail(made: Parts) -> None:
    """Whoever reads it knows that it was not made, and verify has nothing to say."""
    changed(made, 1)
    with pytest.raises(Conflict):
        put(made.console, "team", {"id": "team_2", "name": "team 0"})
    newest, before = made.console.audit.newest(None, 2)[0]
    assert (newest["kind"], newest["after"]) == (NOT_MADE, {"first": before["n"], "last": before["n"]})
    assert told(made) == ""


def test_random_changes_of_the_trail_are_all_found(made: Parts) -> None:
    """Edited bytes, lost, moved, doubled and forged lines, a cut-off end, an older file: each names its line."""
    file = changed(made, 12)
    lines = file.read_bytes().splitlines(keepends=True)
    missed = []
    for seed in range(examples(150, 1_000)):
        chance = random.Random(seed)
        now, at = list(lines), chance.randrange(len(lines))
        how = chance.choice(["edit", "remove", "swap", "double", "cut", "older", "forge"])
        if how == "edit":
            place = chance.randrange(len(now[at]) - 1)
            other = chance.choice([byte for byte in b'aZ09"{ ' if byte != now[at][place]])
            now[at] = now[at][:place] + bytes([other]) + now[at][place + 1 :]
        elif how == "remove":
            del now[at]
        elif how == "swap":
            other_at = (at + chance.randrange(1, len(lines))) % len(lines)
            now[at], now[other_at] = now[other_at], now[at]
        elif how == "double":
            now.insert(at, now[at])
        elif how == "cut":
            now[at] = now[at][: chance.randrange(len(now[at]))]
            del now[at + 1 :]
        elif how == "older":
            now = lines[:at]
        else:
            file.write_bytes(b"".join(now))
            AuditTrail(file.parent).append("2026-11-21T12:00:00Z", "key", "key_x", None, {"role": "root"})
            now = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(now))
        if "trail of changes" not in told(made):
            missed.append(f"seed {seed}: {how} at {at}")
    assert missed == []


@pytest.mark.parametrize(
    "damage", [b"x", b"[" * 5_000, b"[]", b'{"n": 4}', b'{"n": "4", "chain": ""}', b"\xff\xfe", b""]
)
def test_a_damaged_last_line_stops_nobody_but_verify(made: Parts, damage: bytes) -> None:
    """A start, changes and the list go on; the damaged line is named, also when there are lines behind it."""
    file = changed(made, 4)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:-1], damage + b"\n"]))
    assert "line 4 of the trail of changes" in told(made)
    trail = AuditTrail(file.parent)
    settle(trail, made.books, "2026-11-21T12:00:03Z")
    trail.append("2026-11-21T12:00:04Z", "team", "team_after", None, {"name": "after"})

    shown = Api(trusted(made.app)).get("/api/v1/audit?kind=team")["data"]
    assert [row["id"] for row in shown] == ["team_after", "team_2", "team_1", "team_0"]
    assert "line 4 of the trail of changes" in told(made)


def test_the_trail_is_filtered_by_whom_what_and_when(made: Parts) -> None:
    """All filters hold together; a page may be empty while there is more to look at."""
    root = made.admin_key()
    api = Api(made.app, root)
    team = api.post("/api/v1/teams", {"name": "a"})
    made.clock.now += 3_600 * SECOND
    project = api.post("/api/v1/projects", {"name": "b"})
    actor = made.books.listing("key", name="root")[0]["id"]

    def ids(query: str) -> list[str]:
        return [row["id"] for row in api.pages(f"/api/v1/audit?{query}")]

    assert ids("kind=team") == [team["id"]]
    assert ids(f"id={project['id']}&limit=1") == [project["id"]]
    assert ids(f"actor={actor}")[:2] == [project["id"], team["id"]]
    assert ids("since=2026-11-21T12:30:00Z") == [project["id"]]
    assert ids(f"until=2026-11-21T12:30:00Z&actor={actor}")[0] == team["id"]
    assert ids("actor=nobody") == []
    request = api.get("/api/v1/audit?kind=team")["data"][0]["request_id"]
    assert ids(f"request_id={request}")[0] == team["id"]
    assert api.get("/api/v1/audit?colour=red", status=400)["code"] == "filter_invalid"

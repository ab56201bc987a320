"""The trail of changes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console_parts import Api, Parts
from faregate.console.audit import FILE_NAME, AuditTrail
from faregate.console.doors import trusted


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

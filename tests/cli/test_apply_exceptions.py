"""``faregate apply``, ``diff`` and ``export`` of limits with exceptions."""

from pathlib import Path

from cli.test_apply import apply, diff
from commands import command

STATE = """\
keys:
  - {name: ci}
limits:
  - {each: [key], unit: requests, amount: 3, window: hour, except: [{key: ci}]}
  - {each: [user, model], unit: requests, amount: 3, window: hour, except: [{user: bob}, {user: ann, model: dear}]}
"""


def exceptions(tmp_path: Path) -> dict[tuple[str, ...], list[dict[str, str]]]:
    """What each limit counts → whom it spares."""
    rows = command("limit", "list", "--json", "--data", tmp_path / "data").json
    return {tuple(row["each"]): row["except"] for row in rows}


def test_exceptions_name_keys_of_the_same_file(tmp_path: Path) -> None:
    """The key is made first, a second time changes nothing, and what is exported is what was written."""
    assert apply(tmp_path, STATE).code == 0

    key = command("key", "list", "--json", "--data", tmp_path / "data").json[0]["id"]
    assert exceptions(tmp_path) == {
        ("key",): [{"key": key}],
        ("user", "model"): [{"user": "bob"}, {"model": "dear", "user": "ann"}],
    }
    assert diff(tmp_path, STATE).code == 0

    exported = command("export", "--data", tmp_path / "data").out
    assert key not in exported
    assert diff(tmp_path, exported).code == 0


def test_an_exception_that_is_taken_out_of_the_file_is_none_any_more(tmp_path: Path) -> None:
    """And one for a key that nobody made is refused before anything is done."""
    apply(tmp_path, STATE)
    assert apply(tmp_path, STATE.replace(", except: [{key: ci}]", "")).code == 0
    assert exceptions(tmp_path)["key",] == []
    told = apply(tmp_path, STATE.replace("{key: ci}]", "{key: other}]"))
    assert told.code != 0
    assert "other" in told.err

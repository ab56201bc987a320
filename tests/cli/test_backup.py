"""``faregate backup``."""

import hashlib
import shutil
from pathlib import Path

from commands import command


def test_a_backup_of_a_stopped_installation_has_the_digest_that_is_told(tmp_path: Path) -> None:
    """The file is whole."""
    data, file = tmp_path / "data", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    told = command("backup", file, "--json", "--data", data).json
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_backup_that_would_do_harm_is_refused(tmp_path: Path) -> None:
    """Onto a file that exists, or into the data folder itself."""
    data, file = tmp_path / "data", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    file.write_text("precious")
    refused = command("backup", file, "--data", data)
    assert (refused.code, file.read_text()) == (4, "precious")
    assert "--force" in refused.err
    assert command("backup", data / "books.sqlite3", "--force", "--data", data).code == 4
    assert command("backup", file, "--force", "--data", data).code == 0


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """And no name of a file that only the writing of a backup knows."""
    command("key", "create", "--name", "one", "--data", tmp_path / "data")
    told = command("backup", tmp_path / "missing" / "x.tar", "--data", tmp_path / "data")

    assert (told.code, f"{tmp_path / 'missing'} is no folder" in told.err, ".backup-" in told.err) == (1, True, False)


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A folder that is not there is told."""
    data = tmp_path / "data"
    command("key", "create", "--name", "a", "--data", data)
    told = command("backup", tmp_path / "nowhere" / "copy", "--data", data)
    assert told.code == 1
    assert command("backup", "--data", data).code == 2
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data"]


def test_a_restored_trail_of_changes_is_whole_and_goes_on(tmp_path: Path) -> None:
    """What was changed before the backup is told after it, its chain holds, and new lines are chained to it."""
    data, again, file = tmp_path / "data", tmp_path / "again", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    command("backup", file, "--data", data)
    told = command("restore", file, "--data", again, "--json").json
    before = (again / "audit.jsonl").read_bytes()
    shutil.copy(data / "secrets.json", again)
    command("key", "create", "--name", "b", "--data", again)
    verified = command("verify", "--json", "--data", again).json

    assert told["trail_fault"] == ""
    assert (data / "audit.jsonl").read_bytes().startswith(before)
    assert before
    assert (again / "audit.jsonl").read_bytes().startswith(before)
    assert verified["ok"] is True


def test_a_trail_that_was_altered_before_the_backup_is_told_at_the_restore(tmp_path: Path) -> None:
    """The books come back nevertheless: nothing else would be left of them."""
    data, file = tmp_path / "data", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    trail = data / "audit.jsonl"
    trail.write_text(trail.read_text().replace('"a"', '"z"'))
    command("backup", file, "--data", data)
    told = command("restore", file, "--data", tmp_path / "again")

    assert told.code == 0
    assert "of the trail of changes was altered" in told.err


def test_restored_books_are_not_opened_with_new_secrets(tmp_path: Path) -> None:
    """C35: a command says which file is missing, and makes no other in its place."""
    data, again, file = tmp_path / "data", tmp_path / "again", tmp_path / "copy.backup"
    command("key", "create", "--name", "a", "--data", data)
    command("backup", file, "--data", data)
    command("restore", file, "--data", again)
    told = command("verify", "--data", again)

    assert (told.code, "secrets.json is missing" in told.err) == (2, True)
    assert not (again / "secrets.json").exists()
